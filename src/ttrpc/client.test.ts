import { once } from "node:events";
import { connect, createServer, type Socket } from "node:net";
import { afterEach, beforeEach, describe, expect, test } from "vitest";
import { GrpcCode, HuskError } from "../errors.ts";
import { Any } from "../gen/google/protobuf/any.ts";
import { Request, Response } from "../gen/ttrpc/ttrpc.ts";
import { TtrpcClient } from "./client.ts";
import { Flag, FrameType, maxDataBytes } from "./frame.ts";
import { EchoDefinition, listen, ScriptedPeer, text } from "./scripted-peer.ts";
import { TtrpcServer } from "./server.ts";
import type { Handlers } from "./service.ts";
import { TtrpcError } from "./ttrpc-error.ts";

let socket: Awaited<ReturnType<typeof listen>>;
let client: TtrpcClient;

beforeEach(async () => {
  socket = await listen();
});

afterEach(async () => {
  await client.close();
  socket[Symbol.dispose]();
});

/** A client whose server the test plays. */
async function play(): Promise<ScriptedPeer> {
  const accepted = once(socket.listener, "connection") as Promise<[Socket]>;
  client = await TtrpcClient.connect(socket.path);
  return new ScriptedPeer((await accepted)[0]);
}

/** A client of a real server. */
async function serve(handlers: Handlers<typeof EchoDefinition>): Promise<TtrpcServer> {
  const server = new TtrpcServer();
  server.register(EchoDefinition, handlers);
  server.serve(socket.listener);
  client = await TtrpcClient.connect(socket.path);
  return server;
}

const failure = (promise: Promise<unknown>): Promise<unknown> =>
  promise.then(
    () => "no error",
    (error: unknown) => error,
  );

const success = (typeUrl: string): Uint8Array =>
  Response.encode({ status: undefined, payload: Buffer.from(Any.encode(text(typeUrl)).finish()) }).finish();

const refusal = (code: number, message: string): Uint8Array =>
  Response.encode({ status: { code, message, details: [] }, payload: Buffer.alloc(0) }).finish();

async function collect<T>(source: AsyncIterable<T>, into: T[] = []): Promise<T[]> {
  for await (const item of source) into.push(item);
  return into;
}

describe("call", () => {
  test("sends what ttrpc wants, and takes answers in any order", async () => {
    const peer = await play();
    const first = client.call(EchoDefinition, "one", { typeUrl: "a" }, { timeoutMs: 60_000.5, metadata: { ns: "default" } });
    const second = client.call(EchoDefinition, "one", { typeUrl: "b" });
    const frame = await peer.receive();
    expect(frame).toMatchObject({ streamId: 1, type: FrameType.request, flags: 0 });
    expect(Request.decode(frame?.data ?? Buffer.alloc(0))).toEqual({
      service: "test.Echo",
      method: "One",
      payload: Buffer.from(Any.encode(text("a")).finish()),
      timeoutNano: 60_000_500_000n,
      metadata: [{ key: "ns", value: "default" }],
    });
    expect(await peer.receive()).toMatchObject({ streamId: 3 });
    peer.send(3, FrameType.response, 0, success("second"));
    peer.send(1, FrameType.response, 0, success("first"));
    expect(await Promise.all([first, second])).toEqual([text("first"), text("second")]);
  });

  test("rejects with the server's error", async () => {
    const peer = await play();
    const call = failure(client.call(EchoDefinition, "one", {}));
    peer.send(1, FrameType.response, 0, refusal(5, "container web: not found"));
    const error = await call;
    expect(error).toBeInstanceOf(TtrpcError);
    expect(error).toMatchObject({ grpcCode: GrpcCode.notFound, code: "not-found", message: "container web" });
  });

  test("rejects after its time, and what comes later is nobody's", async () => {
    const peer = await play();
    const late = failure(client.call(EchoDefinition, "one", {}, { timeoutMs: 1 }));
    expect(await late).toEqual(new TtrpcError(4, "test.Echo/One did not end within 1 ms"));
    const next = client.call(EchoDefinition, "one", {});
    peer.send(1, FrameType.response, 0, success("too late"));
    peer.send(3, FrameType.response, 0, success("in time"));
    expect(await next).toEqual(text("in time"));
  });

  test("rejects when its signal is aborted, before or after it was sent", async () => {
    await play();
    const reason = new HuskError("deadline", "given up");
    expect(await failure(client.call(EchoDefinition, "one", {}, { signal: AbortSignal.abort(reason) }))).toBe(reason);
    const controller = new AbortController();
    const call = failure(client.call(EchoDefinition, "one", {}, { signal: controller.signal }));
    controller.abort(reason);
    expect(await call).toBe(reason);
  });

  test("rejects at once where the request is too long, and the connection goes on", async () => {
    const peer = await play();
    expect(await failure(client.call(EchoDefinition, "one", { value: Buffer.alloc(maxDataBytes) }))).toMatchObject({
      grpcCode: GrpcCode.resourceExhausted,
      message: "message length 4194330 exceed maximum message size of 4194304",
    });
    const call = client.call(EchoDefinition, "one", {});
    expect(await peer.receive()).toMatchObject({ streamId: 1 });
    peer.send(1, FrameType.response, 0, success("fine"));
    expect(await call).toEqual(text("fine"));
  });

  test("rejects where the answer is too long, is a stream, or cannot be read", async () => {
    const peer = await play();
    const calls = [1, 3, 5, 7].map(() => failure(client.call(EchoDefinition, "one", {})));
    peer.socket.write(Buffer.concat([Buffer.from([0, 0x40, 0, 1, 0, 0, 0, 1, FrameType.response, 0]), Buffer.alloc(maxDataBytes + 1)]));
    peer.send(3, FrameType.data, 0, Any.encode(text("x")).finish());
    peer.send(5, FrameType.response, 0, Buffer.from([0x0a, 0xff]));
    peer.send(7, FrameType.response, 0, Response.encode({ status: undefined, payload: Buffer.from([0x0a, 0xff]) }).finish());
    expect(await Promise.all(calls)).toMatchObject([
      { grpcCode: 8, message: "message length 4194305 exceed maximum message size of 4194304" },
      { grpcCode: 13, message: "the server answered test.Echo/One with a stream, where one answer was expected" },
      { grpcCode: 13, message: "the answer to test.Echo/One cannot be read" },
      { grpcCode: 13, message: "the answer to test.Echo/One cannot be read" },
    ]);
    const next = client.call(EchoDefinition, "one", {});
    peer.send(9, 77, 0, Buffer.from("a later version's"));
    peer.send(9, FrameType.response, 0, success("fine"));
    expect(await next).toEqual(text("fine"));
  });
});

describe("the end of the connection", () => {
  test("rejects everything, now and later", async () => {
    const peer = await play();
    const calls = [failure(client.call(EchoDefinition, "one", {})), failure(collect(client.stream(EchoDefinition, "split", {})))];
    await peer.receive();
    peer.socket.end();
    const reason = new TtrpcError(14, "the peer closed the ttrpc connection");
    expect(await Promise.all(calls)).toEqual([reason, reason]);
    expect(await client.closed).toEqual(reason);
    expect(await failure(client.call(EchoDefinition, "one", {}))).toEqual(reason);
  });

  test("comes with the first thing that is no ttrpc", async () => {
    const peer = await play();
    const call = failure(client.call(EchoDefinition, "one", {}));
    peer.socket.write("HTTP/1.1 400 Bad Request\r\n\r\n");
    expect(await call).toEqual(new TtrpcError(13, "the peer does not speak ttrpc: it announced a frame of 1213486160 bytes"));
    expect(await peer.receive()).toMatchObject({ streamId: 1 });
    expect(await peer.receive()).toBeUndefined();
  });

  test("comes with close", async () => {
    await play();
    const call = failure(client.call(EchoDefinition, "one", {}));
    await client.close();
    expect(await call).toEqual(new TtrpcError(14, "the ttrpc connection was closed"));
  });
});

describe("connect", () => {
  test("says where nobody listens", async () => {
    await play();
    const path = `${socket.path}-not`;
    expect(await failure(TtrpcClient.connect(path))).toMatchObject({ grpcCode: 14, message: `cannot connect to ${path}` });
    expect(await failure(TtrpcClient.connect(path, { signal: AbortSignal.abort(new Error("no")) }))).toEqual(new Error("no"));
  });

  test("reaches abstract sockets", async () => {
    const name = `\0husk-ttrpc-test-${process.pid}`;
    const server = new TtrpcServer();
    server.register(EchoDefinition, { one: (any) => any });
    const listener = createServer().listen(name);
    await once(listener, "listening");
    server.serve(listener);
    client = await TtrpcClient.connect(name);
    expect(await client.call(EchoDefinition, "one", { typeUrl: "hello" })).toEqual(text("hello"));
    await client.close();
    await server.close(1000);
    expect(await failure(TtrpcClient.connect(name))).toMatchObject({ message: `cannot connect to ${name.replace("\0", "@")}` });
  });
});

describe("against the server", () => {
  test("a thousand calls at once", async () => {
    await using _ = await serve({ one: async (any) => ({ typeUrl: any.typeUrl, value: any.value }) });
    const inputs = Array.from({ length: 1000 }, (_, index) => ({ typeUrl: String(index), value: Buffer.alloc(index * 10, index) }));
    expect(await Promise.all(inputs.map((input) => client.call(EchoDefinition, "one", input)))).toEqual(inputs);
  });

  test("large calls both ways at once do not lock each other up", async () => {
    await using _ = await serve({ one: async (any) => any });
    const value = Buffer.alloc(3_000_000, 7);
    const answers = await Promise.all(Array.from({ length: 15 }, () => client.call(EchoDefinition, "one", { value })));
    expect(answers.every((answer) => answer.value.equals(value))).toBe(true);
  });

  test("an answer without fields needs no message", async () => {
    await using _ = await serve({ none: () => {} });
    expect(await client.call(EchoDefinition, "none", {})).toEqual({});
  });

  test("streams of every kind", async () => {
    await using _ = await serve({
      async *split({ typeUrl }) {
        for (const letter of typeUrl) {
          yield { typeUrl: letter };
          if (letter === "!") throw new HuskError("wrong-state", "a bang");
        }
      },
      async join(inputs) {
        return { typeUrl: (await collect(inputs)).map(({ typeUrl }) => typeUrl).join("") };
      },
      async *both(inputs) {
        for await (const { typeUrl } of inputs) yield { typeUrl: typeUrl.toUpperCase() };
      },
    });
    async function* letters() {
      for (const typeUrl of "abc") yield { typeUrl };
    }
    expect(await collect(client.stream(EchoDefinition, "split", { typeUrl: "xyz" }))).toEqual([text("x"), text("y"), text("z")]);
    expect(await client.call(EchoDefinition, "join", letters())).toEqual(text("abc"));
    expect(await collect(client.stream(EchoDefinition, "both", letters()))).toEqual([text("A"), text("B"), text("C")]);
    const before: Any[] = [];
    expect(await failure(collect(client.stream(EchoDefinition, "split", { typeUrl: "x!y" }), before))).toMatchObject({
      code: "wrong-state",
      message: "a bang",
    });
    expect(before).toEqual([text("x"), text("!")]);
  });

  test("a conversation in turns", async () => {
    await using _ = await serve({
      async *both(inputs) {
        for await (const { typeUrl } of inputs) yield { typeUrl: `${typeUrl}?` };
      },
    });
    const said: string[] = [];
    let say: (word: string | undefined) => void = () => {};
    async function* questions() {
      for (;;) {
        const word = await new Promise<string | undefined>((resolve) => {
          say = resolve;
        });
        if (word === undefined) return;
        yield { typeUrl: word };
      }
    }
    const answers = client.stream(EchoDefinition, "both", questions());
    const first = answers.next();
    say("what");
    said.push((await first).value?.typeUrl ?? "");
    const second = answers.next();
    say("who");
    said.push((await second).value?.typeUrl ?? "");
    const end = answers.next();
    say(undefined);
    expect(await end).toEqual({ done: true, value: undefined });
    expect(said).toEqual(["what?", "who?"]);
  });

  test("more than a queue holds, to a reader that takes its time", async () => {
    const total = 2000;
    await using _ = await serve({
      async *split() {
        for (let index = 0; index < total; index++) yield { typeUrl: String(index), value: Buffer.alloc(10_000) };
      },
    });
    let next = 0;
    for await (const { typeUrl } of client.stream(EchoDefinition, "split", {})) {
      expect(typeUrl).toBe(String(next++));
      if (next % 100 === 0) await new Promise((resolve) => void setImmediate(resolve));
    }
    expect(next).toBe(total);
  });

  test("a stream that is left early does not stop the others", async () => {
    await using _ = await serve({
      async *split() {
        for (let index = 0; index < 1000; index++) yield { value: Buffer.alloc(10_000) };
      },
      none: () => {},
    });
    for await (const { value } of client.stream(EchoDefinition, "split", {})) {
      expect(value.length).toBe(10_000);
      break;
    }
    expect(await client.call(EchoDefinition, "none", {})).toEqual({});
  });

  test("a source of requests that fails, fails the call, and ends the server's stream", async () => {
    const seen = Promise.withResolvers<number>();
    await using _ = await serve({
      async join(inputs) {
        seen.resolve((await collect(inputs)).length);
        return {};
      },
    });
    async function* failing() {
      yield { typeUrl: "one" };
      throw new HuskError("host", "no more");
    }
    expect(await failure(client.call(EchoDefinition, "join", failing()))).toEqual(new HuskError("host", "no more"));
    expect(await seen.promise).toBe(1);
  });

  test("a stream's time limit and signal end its reading", async () => {
    await using _ = await serve({
      async *split(_, { signal }) {
        yield { typeUrl: "one" };
        await new Promise((resolve) => signal.addEventListener("abort", resolve));
      },
    });
    const options = { timeoutMs: 20 };
    expect(await failure(collect(client.stream(EchoDefinition, "split", {}, options)))).toMatchObject({ grpcCode: 4 });
    const controller = new AbortController();
    const stream = client.stream(EchoDefinition, "split", {}, { signal: controller.signal });
    await stream.next();
    controller.abort(new HuskError("deadline", "given up"));
    expect(await failure(stream.next())).toEqual(new HuskError("deadline", "given up"));
  });

  test("a server that closes lets the client finish its calls", async () => {
    const gate = Promise.withResolvers<object>();
    const begun = Promise.withResolvers<void>();
    const server = await serve({ one: () => (begun.resolve(), gate.promise) });
    const call = client.call(EchoDefinition, "one", {});
    await begun.promise;
    const closing = server.close(60_000);
    gate.resolve(text("done"));
    expect(await call).toEqual(text("done"));
    await closing;
    expect(await client.closed).toMatchObject({ grpcCode: GrpcCode.unavailable });
  });
});

test("a stream ends with a response too, and Data may carry the last message", async () => {
  const peer = await play();
  const first = collect(client.stream(EchoDefinition, "split", {}));
  const second = collect(client.stream(EchoDefinition, "split", {}));
  expect(await peer.receive()).toMatchObject({ streamId: 1, flags: Flag.remoteClosed });
  const message = Any.encode(text("x")).finish();
  peer.send(1, FrameType.data, 0, message);
  peer.send(1, FrameType.response, 0);
  peer.send(3, FrameType.data, Flag.remoteClosed, message);
  expect(await Promise.all([first, second])).toEqual([[text("x")], [text("x")]]);
});

test("a client can take over a socket that is connected already", async () => {
  const server = new TtrpcServer();
  server.register(EchoDefinition, { none: () => {} });
  server.serve(socket.listener);
  client = new TtrpcClient(connect(socket.path));
  expect(await client.call(EchoDefinition, "none", {})).toEqual({});
  await server.close(0);
});
