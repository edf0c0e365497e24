import { once } from "node:events";
import { type ClientHttp2Session, connect, createServer, type Http2Server, type ServerHttp2Stream } from "node:http2";
import type { AddressInfo } from "node:net";
import { afterEach, beforeEach, expect, test } from "vitest";
import { GrpcCode } from "../errors.ts";
import { BulkCall, type Codec } from "./bulk-call.ts";
import { framed } from "./bulk-message.ts";

const codec: Codec<string, string> = { path: "/s/M", encode: (text) => Buffer.from(text), decode: (bytes) => bytes.toString() };

let server: Http2Server;
let session: ClientHttp2Session;
/** What the server does with a call. */
let serve: (stream: ServerHttp2Stream) => void;

beforeEach(async () => {
  server = createServer().on("stream", (stream) => {
    stream.on("error", () => {}); // clients go away
    serve(stream);
  });
  server.listen(0, "127.0.0.1");
  await once(server, "listening");
  session = connect(`http://127.0.0.1:${(server.address() as AddressInfo).port}`);
  session.on("error", () => {});
});

afterEach(async () => {
  session.destroy();
  await new Promise((resolve) => server.close(resolve));
});

/** Answers `messages`, and a status in the trailers. */
function answer(stream: ServerHttp2Stream, messages: readonly string[], trailers: Readonly<Record<string, string>>): void {
  stream.respond({ ":status": 200, "content-type": "application/grpc" }, { waitForTrailers: true });
  stream.on("wantTrailers", () => stream.sendTrailers(trailers));
  for (const message of messages) stream.write(framed(Buffer.from(message)));
  stream.end();
}

/** Everything that a call tells, to its end. */
async function told(call: BulkCall<string, string>): Promise<unknown[]> {
  const all: unknown[] = [];
  const { promise, resolve } = Promise.withResolvers<void>();
  call.on("metadata", () => all.push("metadata"));
  call.on("data", (message) => all.push(message));
  call.on("end", resolve);
  call.on("error", ({ code, message, errorClass }) => {
    all.push(errorClass === undefined ? [code, message] : [code, message, errorClass]);
    resolve();
  });
  await promise;
  return all;
}

function open(deadlineMs?: number): BulkCall<string, string> {
  return new BulkCall(Promise.resolve(session), codec, deadlineMs);
}

test("messages go both ways, and there is one end", async () => {
  serve = (stream) => {
    const read: Buffer[] = [];
    stream.on("data", (chunk: Buffer) => read.push(chunk));
    stream.on("end", () => answer(stream, [String(Buffer.concat(read).length), "two"], { "grpc-status": "0" }));
  };
  const call = open();
  call.write("12345"); // before there is a stream
  call.end();
  expect(await told(call)).toEqual(["metadata", "10", "two"]);
});

test("a status that is not 0 is the error, with its message decoded and its class", async () => {
  serve = (stream) => answer(stream, ["one"], { "grpc-status": "5", "grpc-message": "no such%20thing", "husk-error": "process-not-found" });
  expect(await told(open())).toEqual(["metadata", "one", [GrpcCode.notFound, "no such thing", "process-not-found"]]);
});

test("a call that is refused in its headers was never taken", async () => {
  serve = (stream) => stream.respond({ ":status": 200, "grpc-status": "9", "grpc-message": "no" }, { endStream: true });
  expect(await told(open())).toEqual([[GrpcCode.failedPrecondition, "no"]]);
});

test("an answer without a status, or that ends within a message, is an error", async () => {
  serve = (stream) => answer(stream, [], {});
  expect(await told(open())).toEqual(["metadata", [GrpcCode.unknown, "the answer ended without a status"]]);
  serve = (stream) => {
    stream.respond({ ":status": 200 }, { waitForTrailers: true });
    stream.on("wantTrailers", () => stream.sendTrailers({ "grpc-status": "0" }));
    stream.end(framed(Buffer.from("cut off")).subarray(0, -1));
  };
  expect(await told(open())).toEqual(["metadata", [GrpcCode.internal, "the answer ended within a message"]]);
});

test("what cannot be read ends the call", async () => {
  serve = (stream) => {
    stream.respond({ ":status": 200 });
    stream.write(Buffer.from([1, 0, 0, 0, 0]));
  };
  expect(await told(open())).toEqual(["metadata", [GrpcCode.internal, "the guest's agent sent a message that is compressed"]]);
});

test("a reset says why", async () => {
  serve = (stream) => {
    stream.respond({ ":status": 200 });
    stream.close(8);
  };
  expect((await told(open())).at(-1)).toEqual([GrpcCode.canceled, "the call's stream was reset with code 8"]);
});

test("a server that says nothing meets the deadline, and the call is given up there as well", async () => {
  const { promise: given, resolve } = Promise.withResolvers<number>();
  serve = (stream) => stream.on("close", () => resolve(stream.rstCode));
  expect(await told(open(50))).toEqual([[GrpcCode.deadlineExceeded, "there was no answer within 50 ms"]]);
  expect(await given).toBe(8);
});

test("the connection's end is every call's, and there is none after it", async () => {
  const { promise: taken, resolve } = Promise.withResolvers<void>();
  serve = () => resolve();
  const end = told(open());
  await taken;
  session.destroy();
  expect(await end).toEqual([[GrpcCode.unavailable, "the connection has ended"]]);
  expect(await told(open())).toEqual([[GrpcCode.unavailable, "the connection has ended"]]);
  const never = new BulkCall(Promise.reject<ClientHttp2Session>(new Error("no guest")), codec);
  expect(await told(never)).toEqual([[GrpcCode.unavailable, "no guest"]]);
});

test("a call that is given up says so, once", async () => {
  serve = (stream) => stream.respond({ ":status": 200 });
  const call = open();
  const end = told(call);
  await once(call, "metadata");
  call.cancel();
  call.cancel();
  expect(await end).toEqual(["metadata", [GrpcCode.canceled, "the call was given up"]]);
});

test("who does not read holds the server back, and gets everything once it does", async () => {
  const total = 64;
  const piece = "x".repeat(65_536);
  let waited = false;
  serve = (stream) => {
    answer(
      stream,
      Array.from({ length: total }, () => piece),
      { "grpc-status": "0" },
    );
    waited = stream.writableLength > 0;
  };
  const call = open();
  call.pause();
  const end = told(call);
  await once(call, "metadata");
  call.resume();
  expect(await end).toEqual(["metadata", ...Array.from({ length: total }, () => piece)]);
  expect(waited).toBe(true);
});
