import { randomBytes } from "node:crypto";
import { existsSync, mkdtempSync, rmSync, statSync } from "node:fs";
import { connect, type Socket } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { text } from "node:stream/consumers";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { HuskError } from "../errors.ts";
import { identify } from "../host/process-identity.ts";
import { type AttachHello, type ControlHandlers, serveControl } from "./control.ts";
import { ControlClient } from "./control-client.ts";
import { type ContainerRecord, claimContainer, writeRecord } from "./record.ts";
import { type RunFolder, removeRunFolder, shortPath } from "./run-folder.ts";

const nobody: ControlHandlers = {
  call: () => {
    throw new Error("no call was expected");
  },
  attach: (_, socket) => socket.destroy(),
};

const record: ContainerRecord = {
  version: 1,
  ociVersion: "1.2.1",
  id: "box",
  status: "running",
  pid: process.pid,
  pidStart: 1,
  supervisor: identify(process.pid) ?? null,
  bundle: "/b",
  rootfs: "/b/rootfs",
  created: "2026-01-01T00:00:00Z",
  owner: "root",
  annotations: {},
  terminal: false,
  foreground: false,
  poststop: [],
};

let root: string;
let folder: RunFolder;

beforeEach(() => {
  // Far longer than the 107 bytes that a unix socket's address holds.
  root = join(mkdtempSync(join(tmpdir(), "husk-control-")), "r".repeat(120));
  folder = claimContainer(root, record);
});
afterEach(() => rmSync(join(root, ".."), { recursive: true }));

async function raw(): Promise<Socket> {
  const short = shortPath(folder.socket);
  const socket = connect({ path: short.path, allowHalfOpen: true });
  await new Promise((resolve) => socket.once("connect", resolve));
  short.release();
  return socket;
}

describe("calls", () => {
  it("carries parameters there and results back, each to its own call", async () => {
    await using _server = await serveControl(folder.socket, {
      ...nobody,
      call: async (method, params) => {
        if (method === "ps") await new Promise((resolve) => setTimeout(resolve, 20));
        return { method, params };
      },
    });
    using client = await ControlClient.connect(root, "box");
    const slow = client.call("ps");
    const quick = await client.call("kill", { signal: 15 });
    expect(quick).toEqual({ method: "kill", params: { signal: 15 } });
    expect(await slow).toEqual({ method: "ps", params: {} });
  });

  it("carries an error's code and its whole chain", async () => {
    await using _server = await serveControl(folder.socket, {
      ...nobody,
      call: () => {
        throw new HuskError("wrong-state", `cannot start "box"`, { cause: new Error("it runs"), hint: "stop it" });
      },
    });
    using client = await ControlClient.connect(root, "box");
    const error = await client.call("start").catch((caught: unknown) => caught);
    expect(error).toBeInstanceOf(HuskError);
    expect(error).toMatchObject({ code: "wrong-state", message: `cannot start "box": it runs (stop it)` });
  });

  it("answers a call that it does not know", async () => {
    await using _server = await serveControl(folder.socket, nobody);
    const socket = await raw();
    socket.end(`{"id":7,"call":"fly"}\n`);
    expect(await text(socket)).toBe(`{"id":7,"error":{"code":"unsupported","message":"the supervisor has no call \\"fly\\""}}\n`);
  });

  it("answers what was asked before the client half-closed", async () => {
    await using _server = await serveControl(folder.socket, {
      ...nobody,
      call: () => new Promise((resolve) => setTimeout(resolve, 20, { late: true })),
    });
    const socket = await raw();
    socket.end(`{"id":1,"call":"ps"}\n`);
    expect(await text(socket)).toBe(`{"id":1,"result":{"late":true}}\n`);
  });

  it("rejects at its deadline, and the connection goes on", async () => {
    await using _server = await serveControl(folder.socket, {
      ...nobody,
      call: (method) => (method === "ps" ? new Promise<void>(() => {}) : { fine: true }),
    });
    using client = await ControlClient.connect(root, "box");
    await expect(client.call("ps", {}, { deadlineMs: 10 })).rejects.toThrow(
      `the supervisor of container "box" did not answer "ps" within 10 ms`,
    );
    expect(await client.call("state")).toEqual({ fine: true });
  });

  it("rejects when its signal aborts", async () => {
    await using _server = await serveControl(folder.socket, { ...nobody, call: () => new Promise<void>(() => {}) });
    using client = await ControlClient.connect(root, "box");
    await expect(client.call("ps", {}, { signal: AbortSignal.timeout(10) })).rejects.toThrow("timeout");
  });

  it("rejects pending and later calls when the supervisor goes away, and tells the supervisor when the client does", async () => {
    let aborted: Promise<unknown> | undefined;
    const asked = Promise.withResolvers<void>();
    const server = await serveControl(folder.socket, {
      ...nobody,
      call: (_method, _params, { signal }) => {
        aborted = new Promise((resolve) => signal.addEventListener("abort", resolve));
        asked.resolve();
        return new Promise<void>(() => {});
      },
    });
    using client = await ControlClient.connect(root, "box");
    const pending = client.call("ps");
    pending.catch(() => {});
    await asked.promise;
    await server.close();
    await expect(pending).rejects.toThrow(`the supervisor of container "box" is gone`);
    await client.closed;
    await expect(client.call("ps")).rejects.toThrow(`the supervisor of container "box" is gone`);
    await aborted;
  });

  it("drops a client whose line never ends", async () => {
    await using _server = await serveControl(folder.socket, nobody);
    const socket = await raw();
    socket.on("error", () => {}); // EPIPE, where the server was quicker
    const closed = new Promise((resolve) => socket.once("close", resolve));
    socket.resume();
    socket.write("x".repeat(3 * 1024 * 1024));
    await closed;
  });
});

describe("stand-ins", () => {
  it("hands over the connection with every byte after its first line, and the end of file in one direction only", async () => {
    const attached = Promise.withResolvers<{ hello: AttachHello; socket: Socket }>();
    await using _server = await serveControl(folder.socket, { ...nobody, attach: (hello, socket) => attached.resolve({ hello, socket }) });
    const bytes = randomBytes(300_000);
    const standIn = await raw();
    standIn.write(Buffer.concat([Buffer.from(`{"attach":"t1","stream":"stdin"}\n`), bytes.subarray(0, 10)]));
    const { hello, socket } = await attached.promise;
    expect(hello).toEqual({ token: "t1", stream: "stdin", pid: undefined });
    standIn.end(bytes.subarray(10));
    await new Promise((resolve) => setTimeout(resolve, 20)); // nothing may flow, or end, before the new owner reads
    const chunks: Buffer[] = [];
    for await (const chunk of socket.iterator({ destroyOnReturn: false })) chunks.push(chunk as Buffer);
    expect(Buffer.concat(chunks).equals(bytes)).toBe(true);
    socket.end("answered after the end of file");
    expect(await text(standIn)).toBe("answered after the end of file");
  });

  it("hands over a connection that had already ended behind its first line", async () => {
    const attached = Promise.withResolvers<Socket>();
    await using _server = await serveControl(folder.socket, { ...nobody, attach: (_, socket) => attached.resolve(socket) });
    const standIn = await raw();
    standIn.end(`{"attach":"t1","stream":"stdin"}\n`);
    const socket = await attached.promise;
    await new Promise((resolve) => setTimeout(resolve, 20));
    expect(await text(socket)).toBe("");
    standIn.destroy();
    socket.destroy();
  });

  it.each([
    ["hello", 0],
    ["hello", 20],
    ["", 0],
    ["", 20],
  ])("flows, to its end, to who listens for data: %j after %d ms", async (input, afterMs) => {
    const heard = Promise.withResolvers<string>();
    const listen = (socket: Socket): void => {
      let said = "";
      socket.on("data", (chunk: Buffer) => (said += chunk.toString()));
      socket.on("end", () => heard.resolve(said));
    };
    await using _server = await serveControl(folder.socket, {
      ...nobody,
      attach: (_, socket) => void (afterMs === 0 ? listen(socket) : setTimeout(listen, afterMs, socket)),
    });
    const standIn = await raw();
    standIn.end(`{"attach":"t1","stream":"stdin"}\n${input}`);
    expect(await heard.promise).toBe(input);
    standIn.destroy();
  });

  it("keeps a stand-in's connection when the server closes", async () => {
    const attached = Promise.withResolvers<Socket>();
    const server = await serveControl(folder.socket, { ...nobody, attach: (_, socket) => attached.resolve(socket) });
    const standIn = await raw();
    standIn.write(`{"attach":"t1","stream":"control","pid":42}\n`);
    const socket = await attached.promise;
    const closing = server.close();
    socket.end("last words");
    expect(await text(standIn)).toBe("last words");
    standIn.destroy();
    await closing;
    expect(existsSync(folder.socket)).toBe(false);
  });
});

it("is its owner's alone", async () => {
  await using _server = await serveControl(folder.socket, nobody);
  expect(statSync(folder.socket).mode & 0o777).toBe(0o600);
});

describe("nobody there", () => {
  it("says that the container does not exist", async () => {
    await expect(ControlClient.connect(root, "other")).rejects.toThrow(`container "other" does not exist`);
    removeRunFolder(folder);
    await expect(ControlClient.connect(root, "box")).rejects.toThrow(`container "box" does not exist`);
  });

  it("says which state keeps it from answering", async () => {
    await expect(ControlClient.connect(root, "box")).rejects.toThrow(`the supervisor of container "box" does not listen`);
    writeRecord(folder, { ...record, status: "creating" });
    await expect(ControlClient.connect(root, "box")).rejects.toThrow(`container "box" is still being created`);
    writeRecord(folder, { ...record, supervisor: null });
    await expect(ControlClient.connect(root, "box")).rejects.toThrow(`container "box" is stopped`);
  });
});
