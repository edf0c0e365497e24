import { once } from "node:events";
import { connect, createServer } from "node:net";
import { afterEach, beforeEach, describe, expect, test } from "vitest";
import { GrpcCode, HuskError } from "../errors.ts";
import { Any } from "../gen/google/protobuf/any.ts";
import { Request, Response } from "../gen/ttrpc/ttrpc.ts";
import { TtrpcClient } from "./client.ts";
import { FrameType, maxDataBytes } from "./frame.ts";
import { collect, EchoDefinition, failure, refusal, TestClient, text } from "./scripted-peer.ts";
import { TtrpcServer } from "./server.ts";
import { TtrpcError } from "./ttrpc-error.ts";

let client: TestClient;

beforeEach(async () => {
  client = await TestClient.open();
});

afterEach(() => client.close());

const success = (typeUrl: string): Uint8Array =>
  Response.encode({ status: undefined, payload: Buffer.from(Any.encode(text(typeUrl)).finish()) }).finish();

describe("call", () => {
  test("sends what ttrpc wants, and takes answers in any order", async () => {
    const peer = await client.play();
    const first = client.ttrpc.call(EchoDefinition, "one", { typeUrl: "a" }, { timeoutMs: 60_000.5, metadata: { ns: "default" } });
    const second = client.ttrpc.call(EchoDefinition, "one", { typeUrl: "b" });
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
    const peer = await client.play();
    const call = failure(client.ttrpc.call(EchoDefinition, "one", {}));
    peer.send(1, FrameType.response, 0, refusal(5, "container web: not found"));
    const error = await call;
    expect(error).toBeInstanceOf(TtrpcError);
    expect(error).toMatchObject({ grpcCode: GrpcCode.notFound, code: "not-found", message: "container web" });
  });

  test("rejects after its time, and what comes later is nobody's", async () => {
    const peer = await client.play();
    const late = failure(client.ttrpc.call(EchoDefinition, "one", {}, { timeoutMs: 1 }));
    expect(await late).toEqual(new TtrpcError(4, "test.Echo/One did not end within 1 ms"));
    const next = client.ttrpc.call(EchoDefinition, "one", {});
    peer.send(1, FrameType.response, 0, success("too late"));
    peer.send(3, FrameType.response, 0, success("in time"));
    expect(await next).toEqual(text("in time"));
  });

  test("rejects when its signal is aborted, before or after it was sent", async () => {
    await client.play();
    const reason = new HuskError("deadline", "given up");
    expect(await failure(client.ttrpc.call(EchoDefinition, "one", {}, { signal: AbortSignal.abort(reason) }))).toBe(reason);
    const controller = new AbortController();
    const call = failure(client.ttrpc.call(EchoDefinition, "one", {}, { signal: controller.signal }));
    controller.abort(reason);
    expect(await call).toBe(reason);
  });

  test("rejects at once where the request is too long, and the connection goes on", async () => {
    const peer = await client.play();
    expect(await failure(client.ttrpc.call(EchoDefinition, "one", { value: Buffer.alloc(maxDataBytes) }))).toMatchObject({
      grpcCode: GrpcCode.resourceExhausted,
      message: "message length 4194330 exceed maximum message size of 4194304",
    });
    const call = client.ttrpc.call(EchoDefinition, "one", {});
    expect(await peer.receive()).toMatchObject({ streamId: 1 });
    peer.send(1, FrameType.response, 0, success("fine"));
    expect(await call).toEqual(text("fine"));
  });

  test("rejects where the answer is too long, is a stream, or cannot be read", async () => {
    const peer = await client.play();
    const calls = [1, 3, 5, 7].map(() => failure(client.ttrpc.call(EchoDefinition, "one", {})));
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
    const next = client.ttrpc.call(EchoDefinition, "one", {});
    peer.send(9, 77, 0, Buffer.from("a later version's"));
    peer.send(9, FrameType.response, 0, success("fine"));
    expect(await next).toEqual(text("fine"));
  });
});

describe("the end of the connection", () => {
  test("rejects everything, now and later", async () => {
    const peer = await client.play();
    const calls = [
      failure(client.ttrpc.call(EchoDefinition, "one", {})),
      failure(collect(client.ttrpc.stream(EchoDefinition, "split", {}))),
    ];
    await peer.receive();
    peer.socket.end();
    const reason = new TtrpcError(14, "the peer closed the ttrpc connection");
    expect(await Promise.all(calls)).toEqual([reason, reason]);
    expect(await client.ttrpc.closed).toEqual(reason);
    expect(await failure(client.ttrpc.call(EchoDefinition, "one", {}))).toEqual(reason);
  });

  test("comes with the first thing that is no ttrpc", async () => {
    const peer = await client.play();
    const call = failure(client.ttrpc.call(EchoDefinition, "one", {}));
    peer.socket.write("HTTP/1.1 400 Bad Request\r\n\r\n");
    expect(await call).toEqual(new TtrpcError(13, "the peer does not speak ttrpc: it announced a frame of 1213486160 bytes"));
    expect(await peer.receive()).toMatchObject({ streamId: 1 });
    expect(await peer.receive()).toBeUndefined();
  });

  test("comes with close", async () => {
    await client.play();
    const call = failure(client.ttrpc.call(EchoDefinition, "one", {}));
    await client.ttrpc.close();
    expect(await call).toEqual(new TtrpcError(14, "the ttrpc connection was closed"));
  });
});

describe("connect", () => {
  test("says where nobody listens", async () => {
    await client.play();
    const path = `${client.socket.path}-not`;
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
    client.ttrpc = await TtrpcClient.connect(name);
    expect(await client.ttrpc.call(EchoDefinition, "one", { typeUrl: "hello" })).toEqual(text("hello"));
    await client.ttrpc.close();
    await server.close(1000);
    expect(await failure(TtrpcClient.connect(name))).toMatchObject({ message: `cannot connect to ${name.replace("\0", "@")}` });
  });
});

describe("against the server", () => {
  test("a thousand calls at once", async () => {
    await using _ = await client.serve({ one: async (any) => ({ typeUrl: any.typeUrl, value: any.value }) });
    const inputs = Array.from({ length: 1000 }, (_, index) => ({ typeUrl: String(index), value: Buffer.alloc(index * 10, index) }));
    expect(await Promise.all(inputs.map((input) => client.ttrpc.call(EchoDefinition, "one", input)))).toEqual(inputs);
  });

  test("large calls both ways at once do not lock each other up", async () => {
    await using _ = await client.serve({ one: async (any) => any });
    const value = Buffer.alloc(3_000_000, 7);
    const answers = await Promise.all(Array.from({ length: 15 }, () => client.ttrpc.call(EchoDefinition, "one", { value })));
    expect(answers.every((answer) => answer.value.equals(value))).toBe(true);
  });

  test("an answer without fields needs no message", async () => {
    await using _ = await client.serve({ none: () => {} });
    expect(await client.ttrpc.call(EchoDefinition, "none", {})).toEqual({});
  });

  test("a server that closes lets the client finish its calls", async () => {
    const gate = Promise.withResolvers<object>();
    const begun = Promise.withResolvers<void>();
    const server = await client.serve({ one: () => (begun.resolve(), gate.promise) });
    const call = client.ttrpc.call(EchoDefinition, "one", {});
    await begun.promise;
    const closing = server.close(60_000);
    gate.resolve(text("done"));
    expect(await call).toEqual(text("done"));
    await client.ttrpc.close();
    await closing;
  });
});

test("a client can take over a socket that is connected already", async () => {
  const server = new TtrpcServer();
  server.register(EchoDefinition, { none: () => {} });
  server.serve(client.socket.listener);
  client.ttrpc = new TtrpcClient(connect(client.socket.path));
  expect(await client.ttrpc.call(EchoDefinition, "none", {})).toEqual({});
  await server.close(0);
});
