import { mkdtempSync, rmSync } from "node:fs";
import { createServer as createHttp2Server } from "node:http2";
import { createServer, type Socket, type Server as SocketServer } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { Metadata, Server, ServerCredentials, type ServiceDefinition, status, type UntypedServiceImplementation } from "@grpc/grpc-js";
import { afterEach, expect, test } from "vitest";
import { AgentServiceDefinition } from "../gen/agent/v1/agent.ts";
import { AgentClient } from "./agent-client.ts";

/** What runs in the guest, as far as a client can tell: it discards what comes before the dial line, echoes the nonce, and serves. */
class FakeAgent implements AsyncDisposable {
  readonly path: string;
  readonly #folder = mkdtempSync(join(tmpdir(), "husk-agent-"));
  readonly #grpc = new Server();
  readonly #server: SocketServer;
  readonly #sockets = new Set<Socket>();

  constructor(
    handlers: UntypedServiceImplementation,
    greet: (dial: string) => string = (dial) => dial.replace("husk-dial", "husk-accept"),
  ) {
    this.path = join(this.#folder, "agent.sock");
    this.#grpc.addService(service(), handlers);
    const injector = this.#grpc.createConnectionInjector(ServerCredentials.createInsecure());
    this.#server = createServer((socket) => {
      this.#sockets.add(socket);
      socket.on("error", () => {});
      socket.once("data", (chunk: Buffer) => {
        const end = chunk.indexOf("\n") + 1;
        socket.write(greet(chunk.subarray(0, end).toString()));
        if (end < chunk.length) socket.unshift(chunk.subarray(end));
        injector.injectConnection(socket);
      });
    });
  }

  async listen(): Promise<this> {
    await new Promise<void>((resolve) => this.#server.listen(this.path, resolve));
    return this;
  }

  /** What a dying guest looks like. */
  hangUp(): void {
    for (const socket of this.#sockets) socket.destroy();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.hangUp();
    this.#grpc.forceShutdown();
    await new Promise((resolve) => this.#server.close(resolve));
    rmSync(this.#folder, { recursive: true });
  }
}

/** The generated definition in the form that grpc-js's server takes. */
function service(): ServiceDefinition {
  return Object.fromEntries(
    Object.entries(AgentServiceDefinition.methods).map(([key, { name, requestType, responseType, requestStream, responseStream }]) => [
      key,
      {
        path: `/${AgentServiceDefinition.fullName}/${name}`,
        requestStream,
        responseStream,
        requestSerialize: () => Buffer.alloc(0),
        requestDeserialize: (bytes: Buffer) => requestType.decode(bytes),
        responseSerialize: (message: never) => Buffer.from(responseType.encode(message).finish()),
        responseDeserialize: () => undefined,
      },
    ]),
  ) as unknown as ServiceDefinition;
}

const opened: (AsyncDisposable | AgentClient)[] = [];
afterEach(async () => {
  for (const one of opened.splice(0).toReversed()) {
    if (one instanceof AgentClient) one.close();
    else await one[Symbol.asyncDispose]();
  }
});

async function connect(handlers: UntypedServiceImplementation, greet?: (dial: string) => string): Promise<[AgentClient, FakeAgent]> {
  const agent = await new FakeAgent(handlers, greet).listen();
  const client = new AgentClient(agent.path, 2000);
  opened.push(agent, client);
  return [client, agent];
}

const createSandbox = (_: unknown, reply: (error: null, answer: object) => void): void =>
  reply(null, { agentVersion: "1.2", kernelRelease: "6.1", bootNs: 5n, done: ["clock"] });

test("a call is answered over the dialled stream, whatever stale bytes came before", async () => {
  const [client] = await connect(
    { createSandbox },
    (dial) => `stale bytes\nhusk-accept 1 ${"0".repeat(32)}\n${dial.replace("husk-dial", "husk-accept")}`,
  );
  await client.ready(2000);
  expect(await client.call("createSandbox", { sandboxId: "a" })).toEqual({
    agentVersion: "1.2",
    kernelRelease: "6.1",
    bootNs: 5n,
    done: ["clock"],
  });
});

test("the dial is by the nonce that the guest was told, where there is one", async () => {
  const dials: string[] = [];
  const agent = await new FakeAgent({ createSandbox }, (dial) => {
    dials.push(dial);
    return dial.replace("husk-dial", "husk-accept");
  }).listen();
  const nonce = "0123456789abcdef".repeat(2);
  const client = new AgentClient(agent.path, 2000, nonce);
  opened.push(agent, client);
  await client.ready(2000);
  expect(dials).toEqual([`husk-dial 1 ${nonce}\n`]);
});

test("an agent of another protocol version is not talked to", async () => {
  const [client] = await connect({ createSandbox }, (dial) => dial.replace("husk-dial 1", "husk-accept 7"));
  await expect(client.call("createSandbox", {})).rejects.toThrow(/the guest's agent is gone \(CreateSandbox\)/);
});

test("the agent's error class becomes a code of husk, its message one line", async () => {
  const metadata = new Metadata();
  metadata.set("husk-error", "program-not-found");
  const [client] = await connect({
    createContainer: (_: unknown, reply: (error: object) => void) =>
      reply({ code: status.NOT_FOUND, details: 'exec: "nope":\n executable file not found in $PATH', metadata }),
  });
  await expect(client.call("createContainer", { containerId: "a" })).rejects.toMatchObject({
    code: "program-not-found",
    message: 'exec: "nope":  executable file not found in $PATH',
  });
});

test("a guest that does not answer meets the deadline", async () => {
  const [client] = await connect({ startProcess: () => {} });
  await expect(client.call("startProcess", { containerId: "a" }, 50)).rejects.toMatchObject({
    code: "deadline",
    message: "the guest did not answer StartProcess in time",
  });
});

test("waiting for a process has no deadline, and ends with the channel", async () => {
  const waiting = Promise.withResolvers<void>();
  const [client, agent] = await connect({ waitProcess: () => waiting.resolve() });
  const { answer } = client.waitProcess({ containerId: "a", processId: "" });
  await waiting.promise;
  agent.hangUp();
  await expect(answer).rejects.toMatchObject({ code: "guest" });
});

test("a channel that broke is not dialled again", async () => {
  const [client, agent] = await connect({ createSandbox });
  await client.call("createSandbox", {});
  agent.hangUp();
  await expect(client.call("createSandbox", {})).rejects.toMatchObject({ code: "guest" });
  await expect(client.call("createSandbox", {})).rejects.toMatchObject({ code: "guest" });
});

test("closing it ends the wait for an agent that never answers", async () => {
  await using agent = await new FakeAgent({}, () => "").listen();
  const client = new AgentClient(agent.path, 1000);
  const ready = client.ready(60_000);
  client.close();
  await expect(ready).rejects.toThrow("the channel to the guest's agent was closed");
});

test("the guest may send large frames", async () => {
  const folder = mkdtempSync(join(tmpdir(), "husk-agent-"));
  const path = join(folder, "agent.sock");
  const sockets: Socket[] = [];
  const frames = Promise.withResolvers<number | undefined>();
  const http2 = createHttp2Server().on("session", (session) => {
    session.on("error", () => {}); // the client goes away
    session.on("remoteSettings", ({ maxFrameSize }) => {
      if (maxFrameSize !== 16_384) frames.resolve(maxFrameSize);
    });
  });
  const server = createServer((socket) => {
    sockets.push(socket);
    socket.once("data", (chunk: Buffer) => {
      socket.write(chunk.toString().replace("husk-dial", "husk-accept"));
      http2.emit("connection", socket);
    });
  });
  await new Promise<void>((resolve) => server.listen(path, resolve));
  const client = new AgentClient(path, 2000);
  try {
    const call = client.call("createSandbox", {}).catch((error: unknown) => error);
    expect(await frames.promise).toBe(2 * 1024 * 1024 + 64);
    for (const socket of sockets) socket.destroy();
    expect(await call).toBeInstanceOf(Error);
  } finally {
    client.close();
    await new Promise((resolve) => server.close(resolve));
    rmSync(folder, { recursive: true });
  }
});

test("a call on a closed client is refused, and nothing throws outside of its promise", async () => {
  const client = new AgentClient("/nonexistent/agent.sock", 1000);
  client.close();
  expect(client.closed).toBe(true);
  await expect(client.call("shutdown", {})).rejects.toThrow("the channel to the guest's agent was closed");
  await expect(client.waitProcess({ containerId: "c", processId: "" }).answer).rejects.toThrow(
    "the channel to the guest's agent was closed",
  );
});

test("output comes over the connection that the library opened, from its first call on", async () => {
  const readOutput = (call: { write(message: object): void; end(): void }): void => {
    call.write({ data: Buffer.from("one "), processEnded: false });
    call.write({ data: Buffer.from("two"), processEnded: false });
    call.end();
  };
  const [client] = await connect({ createSandbox, readOutput });
  const call = client.readOutput({ containerId: "a", processId: "", output: 1 });
  const chunks: Buffer[] = [];
  const ended = new Promise<void>((resolve, reject) => {
    call.on("data", (data) => void chunks.push(data));
    call.once("end", resolve);
    call.once("error", reject);
  });
  await client.call("createSandbox", { sandboxId: "a" });
  await ended;
  expect(Buffer.concat(chunks).toString()).toBe("one two");
});

test("output that waits for a connection ends with the client", async () => {
  const [client] = await connect({ createSandbox });
  const call = client.readOutput({ containerId: "a", processId: "", output: 1 });
  const ended = new Promise<Error>((resolve) => call.once("error", resolve));
  client.close();
  expect((await ended).message).toBe("the channel to the guest's agent was closed");
});
