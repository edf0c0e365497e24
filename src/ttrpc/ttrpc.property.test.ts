/** Whatever a peer sends, nothing is thrown where nobody catches it, every call settles, and the others are served on. */
import { once } from "node:events";
import type { Socket } from "node:net";
import * as fc from "fast-check";
import { expect, test } from "vitest";
import { TtrpcClient } from "./client.ts";
import { encodeFrame, FrameType } from "./frame.ts";
import { dial, EchoDefinition, listen, request, TestServer } from "./scripted-peer.ts";
import { TtrpcError } from "./ttrpc-error.ts";

/** Data that a request or a message could be, and data that it could not. */
const data = fc.oneof(
  fc.uint8Array({ maxLength: 40 }),
  fc.constantFrom(...["One", "None", "Split", "Join", "Both", "Nothing"].map((method) => request(method))),
);

/** Streams and types that collide with each other more often than not. */
const frame = fc
  .tuple(fc.integer({ min: 0, max: 9 }), fc.integer({ min: 0, max: 4 }), fc.integer({ min: 0, max: 7 }), data)
  .map(([streamId, type, flags, bytes]) => encodeFrame(streamId, type, flags, bytes));

const traffic = fc.array(fc.oneof({ weight: 20, arbitrary: frame }, { weight: 1, arbitrary: fc.uint8Array({ maxLength: 30 }) }));

test("a server serves the next client", async () => {
  const server = await TestServer.start();
  server.ttrpc.register(EchoDefinition, {
    one: (any) => any,
    none: () => {},
    async *split(any) {
      yield any;
    },
    async join(inputs) {
      for await (const any of inputs) if (any.typeUrl !== "") return any;
      return {};
    },
    async *both(inputs) {
      yield* inputs;
    },
  });
  await fc.assert(
    fc.asyncProperty(traffic, async (chunks) => {
      const peer = await dial(server.path);
      for (const chunk of chunks) peer.socket.write(chunk);
      peer.socket.end();
      const next = await dial(server.path);
      next.send(1, FrameType.request, 0, request("None"));
      expect(await next.response()).toEqual([1, 0, ""]);
      next.socket.destroy();
      while (!peer.socket.destroyed) await peer.receive();
    }),
    { numRuns: 300 },
  );
  expect(server.errors.filter((error) => !(error instanceof TtrpcError))).toEqual([]); // defects of the server are answered too
  await server.stop();
});

test("a client's calls settle", async () => {
  const socket = await listen();
  async function* requests() {
    yield {};
    yield {};
  }
  await fc.assert(
    fc.asyncProperty(traffic, async (chunks) => {
      const accepted = once(socket.listener, "connection") as Promise<[Socket]>;
      const client = await TtrpcClient.connect(socket.path);
      const [server] = await accepted;
      server.on("error", () => {});
      server.resume();
      const read = async (source: AsyncIterable<unknown>): Promise<void> => {
        for await (const message of source) expect(message).toBeTypeOf("object");
      };
      const calls = Promise.allSettled([
        client.call(EchoDefinition, "one", {}),
        read(client.stream(EchoDefinition, "split", {})),
        client.call(EchoDefinition, "join", requests()),
        read(client.stream(EchoDefinition, "both", requests())),
      ]);
      for (const chunk of chunks) server.write(chunk);
      server.end();
      for (const outcome of await calls) if (outcome.status === "rejected") expect(outcome.reason).toBeInstanceOf(TtrpcError);
      await client.close();
    }),
    { numRuns: 300 },
  );
  socket[Symbol.dispose]();
});
