import { setTimeout as sleep } from "node:timers/promises";
import { afterEach, beforeEach, describe, expect, test } from "vitest";
import { GrpcCode } from "../errors.ts";
import { Any } from "../gen/google/protobuf/any.ts";
import { Request } from "../gen/ttrpc/ttrpc.ts";
import { Flag, FrameType, maxDataBytes } from "./frame.ts";
import { aborted, request, TestServer } from "./scripted-peer.ts";

const { request: REQUEST, data: DATA } = FrameType;

let server: TestServer;

beforeEach(async () => {
  server = await TestServer.start();
});

afterEach(() => server.stop());

describe("clients that break the protocol", () => {
  test("are told about stream ids that are even, used or unknown", async () => {
    const peer = await server.serve({ none: () => {} });
    peer.send(2, REQUEST, 0, request("None"));
    expect(await peer.response()).toEqual([2, 3, "StreamID must be odd for client initiated streams: invalid argument"]);
    peer.send(5, REQUEST, 0, request("None"));
    expect(await peer.response()).toEqual([5, 0, ""]);
    for (const used of [5, 3]) {
      peer.send(used, REQUEST, 0, request("None"));
      expect(await peer.response()).toEqual([used, 3, "StreamID cannot be re-used and must increment: invalid argument"]);
    }
    peer.send(7, DATA, 0);
    expect(await peer.response()).toEqual([7, 3, "StreamID is no longer active: invalid argument"]);
  });

  test("are told about requests that cannot be read", async () => {
    const peer = await server.serve({ one: () => ({}), none: () => {} });
    peer.send(1, REQUEST, 0, Buffer.from([0x1a, 0xff]));
    expect((await peer.response()).slice(0, 2)).toEqual([1, 3]);
    const payload = Buffer.from([0x0a, 0xff]);
    peer.send(3, REQUEST, 0, Request.encode({ service: "test.Echo", method: "One", payload, timeoutNano: 0n, metadata: [] }).finish());
    expect((await peer.response()).slice(0, 2)).toEqual([3, 3]);
    peer.send(5, REQUEST, 0, request("None"));
    expect(await peer.response()).toEqual([5, 0, ""]);
  });

  test("are told about a request that is too long, and may go on", async () => {
    const peer = await server.serve({ none: () => {} });
    const header = Buffer.from([0, 0x50, 0, 0, 0, 0, 0, 1, REQUEST, 0]);
    peer.socket.write(Buffer.concat([header, Buffer.alloc(0x500000)]));
    expect(await peer.response()).toEqual([1, 8, "message length 5242880 exceed maximum message size of 4194304"]);
    peer.send(3, REQUEST, 0, request("None"));
    expect(await peer.response()).toEqual([3, 0, ""]);
  });

  test("are not answered where the frame's type is unknown", async () => {
    const peer = await server.serve({ none: () => {} });
    peer.send(1, 9, 0, Buffer.from("later"));
    peer.send(1, FrameType.response, 0);
    peer.send(1, REQUEST, 0, request("None"));
    expect(await peer.response()).toEqual([1, 0, ""]);
  });

  test("are hung up on where they do not speak ttrpc", async () => {
    const seen = Promise.withResolvers<unknown>();
    const peer = await server.serve({ one: (_, { signal }) => aborted(signal).then(() => seen.resolve(signal.reason) ?? {}) });
    peer.send(1, REQUEST, 0, request("One"));
    peer.socket.write("GET / HTTP/1.1\r\n\r\n");
    expect(await peer.receive()).toBeUndefined();
    expect(await seen.promise).toMatchObject({ grpcCode: GrpcCode.internal });
    expect(server.failures).toEqual([["connection", "the peer does not speak ttrpc: it announced a frame of 1195725856 bytes"]]);
  });

  test("may not have more going on than the server can hold", async () => {
    const gate = Promise.withResolvers<object>();
    const peer = await server.serve({ one: () => gate.promise, none: () => {} });
    const large = { typeUrl: "", value: Buffer.alloc(maxDataBytes - 100) };
    for (let call = 0; call < 17; call++) peer.send(2 * call + 1, REQUEST, 0, request("One", large));
    expect(await peer.response()).toEqual([33, 8, "16 calls are going on; no more are taken"]);
    gate.resolve({});
    for (let call = 0; call < 16; call++) expect((await peer.response())[1]).toBe(0);
  });
});

describe("back-pressure", () => {
  test("a client that does not read is not read from", async () => {
    let calls = 0;
    const peer = await server.serve({ one: () => (calls++, { value: Buffer.alloc(100_000) }) });
    peer.socket.pause();
    const total = 300;
    const large = request("One", { typeUrl: "", value: Buffer.alloc(10_000) });
    for (let call = 0; call < total; call++) peer.send(2 * call + 1, REQUEST, 0, large);
    await settled(() => calls);
    expect(calls).toBeLessThan(total);
    peer.socket.resume();
    for (let call = 0; call < total; call++) expect((await peer.response())[1]).toBe(0);
  });

  test("a stream of answers is asked for no more than the client reads", async () => {
    let given = 0;
    const peer = await server.serve({
      async *split() {
        for (; given < 300; given++) yield { value: Buffer.alloc(100_000) };
      },
    });
    peer.socket.pause();
    peer.send(1, REQUEST, Flag.remoteClosed, request("Split"));
    await settled(() => given);
    expect(given).toBeLessThan(100);
    peer.socket.resume();
    for (let answer = 0; answer < 300; answer++) expect((await peer.receive())?.flags).toBe(0);
    expect((await peer.receive())?.flags).toBe(Flag.remoteClosed | Flag.noData);
  });

  test("a stream of requests that nobody reads stops the connection", async () => {
    const gate = Promise.withResolvers<void>();
    let bytes = 0;
    const peer = await server.serve({
      async join(inputs) {
        await gate.promise;
        for await (const { value } of inputs) bytes += value.length;
        return {};
      },
    });
    peer.send(1, REQUEST, Flag.remoteOpen, request("Join"));
    const message = Any.encode({ typeUrl: "", value: Buffer.alloc(1_000_000) }).finish();
    for (let count = 0; count < 50; count++) peer.send(1, DATA, 0, message);
    peer.send(1, DATA, Flag.remoteClosed | Flag.noData);
    await settled(() => peer.socket.bytesWritten - peer.socket.writableLength);
    expect(peer.socket.writableLength).toBeGreaterThan(40_000_000);
    gate.resolve();
    expect((await peer.response()).slice(0, 2)).toEqual([1, 0]);
    expect(bytes).toBe(50_000_000);
  });
});

/** Waits until a figure has begun to grow and does not any more. */
async function settled(figure: () => number): Promise<void> {
  for (let last = -1, same = 0; same < 20; ) {
    await sleep(5);
    same = figure() > 0 && figure() === last ? same + 1 : 0;
    last = figure();
  }
}
