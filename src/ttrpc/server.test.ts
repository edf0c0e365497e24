import { setTimeout as sleep } from "node:timers/promises";
import { afterEach, beforeEach, describe, expect, test } from "vitest";
import { GrpcCode, HuskError } from "../errors.ts";
import { Any } from "../gen/google/protobuf/any.ts";
import { Request } from "../gen/ttrpc/ttrpc.ts";
import { Flag, FrameType, maxDataBytes } from "./frame.ts";
import { aborted, dial, EchoDefinition, request, type ScriptedPeer, TestServer, text } from "./scripted-peer.ts";
import type { CallContext, Handlers } from "./service.ts";
import { TtrpcError } from "./ttrpc-error.ts";

const { request: REQUEST, data: DATA } = FrameType;

let server: TestServer;

beforeEach(async () => {
  server = await TestServer.start();
});

afterEach(() => server.stop());

const body = (value: string): Uint8Array => Any.encode(text(value)).finish();

describe("unary calls", () => {
  test("are answered in the order in which they are done", async () => {
    const gate = Promise.withResolvers<void>();
    const peer = await server.serve({
      one: async ({ typeUrl }) => {
        if (typeUrl === "slow") await gate.promise;
        return { typeUrl: `${typeUrl} done` };
      },
    });
    peer.send(1, REQUEST, 0, request("One", text("slow")));
    peer.send(3, REQUEST, 0, request("One", text("quick")));
    expect(await peer.response()).toEqual([3, 0, "quick done"]);
    gate.resolve();
    expect(await peer.response()).toEqual([1, 0, "slow done"]);
  });

  test("may have an empty request and an empty answer", async () => {
    const peer = await server.serve({ none: () => {} });
    peer.send(
      1,
      REQUEST,
      0,
      Request.encode({ service: "test.Echo", method: "None", payload: Buffer.alloc(0), timeoutNano: 0n, metadata: [] }).finish(),
    );
    expect(await peer.receive()).toMatchObject({ streamId: 1, type: FrameType.response, flags: 0, length: 0 });
  });

  test.each([
    [new TtrpcError(GrpcCode.aborted, "no"), 10, "no"],
    [new HuskError("not-found", "container web"), 5, "container web: not found"],
    [new TypeError("a defect"), 2, "a defect"],
  ])("that fail with %s are answered with its code, and told to onFailure", async (error, code, message) => {
    const peer = await server.serve({ one: () => Promise.reject(error), none: () => raise(error) });
    peer.send(1, REQUEST, 0, request("One"));
    expect(await peer.response()).toEqual([1, code, message]);
    peer.send(3, REQUEST, 0, request("None"));
    expect(await peer.response()).toEqual([3, code, message]);
    expect(server.failures).toEqual([
      ["test.Echo/One", error.message],
      ["test.Echo/None", error.message],
    ]);
  });

  test("of what is not served are answered with 12", async () => {
    const peer = await server.serve({ one: () => ({}) });
    peer.send(1, REQUEST, 0, request("Two"));
    peer.send(3, REQUEST, 0, request("None"));
    peer.send(
      5,
      REQUEST,
      0,
      Request.encode({ service: "__proto__", method: "One", payload: Buffer.alloc(0), timeoutNano: 0n, metadata: [] }).finish(),
    );
    expect(await peer.response()).toEqual([1, 12, "method test.Echo/Two: not implemented"]);
    expect(await peer.response()).toEqual([3, 12, "method test.Echo/None: not implemented"]);
    expect(await peer.response()).toEqual([5, 12, "service __proto__: not implemented"]);
  });

  test("get the metadata", async () => {
    const seen: unknown[] = [];
    const peer = await server.serve({ one: (_, { metadata }) => (seen.push(...metadata), {}) });
    const metadata = [
      { key: "ns", value: "a" },
      { key: "ns", value: "b" },
      { key: "other", value: "c" },
    ];
    const data = Request.encode({ service: "test.Echo", method: "One", payload: Buffer.alloc(0), timeoutNano: 0n, metadata }).finish();
    peer.send(1, REQUEST, 0, data);
    await peer.response();
    expect(seen).toEqual([
      ["ns", ["a", "b"]],
      ["other", ["c"]],
    ]);
  });

  test("are answered with 4 when their time is up, once, and their handlers know", async () => {
    const reasons: unknown[] = [];
    const ended = Promise.withResolvers<void>();
    const peer = await server.serve({
      one: async (_, { signal }) => {
        await aborted(signal);
        reasons.push(signal.reason);
        ended.resolve();
        return { typeUrl: "too late" };
      },
      none: () => {},
    });
    peer.send(1, REQUEST, 0, request("One", text(""), 1_000_000n));
    expect(await peer.response()).toEqual([1, 4, "test.Echo/One did not end within 1 ms: context deadline exceeded"]);
    await ended.promise;
    expect(reasons).toEqual([new TtrpcError(4, "test.Echo/One did not end within 1 ms")]);
    peer.send(3, REQUEST, 0, request("One", text(""), -5n));
    expect(await peer.response()).toEqual([3, 4, "test.Echo/One did not end within 0 ms: context deadline exceeded"]);
    // A time limit that no timer can hold is none.
    peer.send(5, REQUEST, 0, request("None", text(""), 2n ** 63n - 1n));
    expect(await peer.response()).toEqual([5, 0, ""]);
  });

  test("are aborted when the client is gone", async () => {
    const seen = Promise.withResolvers<unknown>();
    const peer = await server.serve({ one: (_, { signal }) => aborted(signal).then(() => seen.resolve(signal.reason) ?? {}) });
    peer.send(1, REQUEST, 0, request("One"));
    peer.socket.end();
    expect(await seen.promise).toEqual(new TtrpcError(14, "the peer closed the ttrpc connection"));
    expect(server.failures).toEqual([]);
  });

  test("with an answer that is too long fail, and the connection goes on", async () => {
    const peer = await server.serve({ one: () => ({ value: Buffer.alloc(maxDataBytes) }), none: () => {} });
    peer.send(1, REQUEST, 0, request("One"));
    expect(await peer.response()).toEqual([1, 8, "message length 4194314 exceed maximum message size of 4194304"]);
    peer.send(3, REQUEST, 0, request("None"));
    expect(await peer.response()).toEqual([3, 0, ""]);
  });
});

describe("streams", () => {
  const handlers: Handlers<typeof EchoDefinition> = {
    async *split({ typeUrl }) {
      for (const letter of typeUrl) {
        if (letter === "!") throw new HuskError("wrong-state", "a bang");
        yield { typeUrl: letter };
      }
    },
    async join(inputs) {
      let all = "";
      for await (const { typeUrl } of inputs) all += typeUrl;
      return { typeUrl: all };
    },
    async *both(inputs) {
      for await (const { typeUrl } of inputs) {
        if (typeUrl === "end") return;
        yield { typeUrl: `${typeUrl}${typeUrl}` };
      }
    },
  };

  /** The next frame: the text of its message, or its type and flags. */
  async function next(peer: ScriptedPeer): Promise<string | [type: number | undefined, flags: number | undefined]> {
    const frame = await peer.receive();
    if (frame?.data === undefined || frame.type !== DATA || frame.flags !== 0) return [frame?.type, frame?.flags];
    return Any.decode(frame.data).typeUrl;
  }

  test("of answers end with an empty frame", async () => {
    const peer = await server.serve(handlers);
    peer.send(1, REQUEST, Flag.remoteClosed, request("Split", text("ab")));
    expect([await next(peer), await next(peer), await next(peer)]).toEqual(["a", "b", [DATA, Flag.remoteClosed | Flag.noData]]);
  });

  test("of answers that fail end with a response", async () => {
    const peer = await server.serve(handlers);
    peer.send(1, REQUEST, Flag.remoteClosed, request("Split", text("a!")));
    expect(await next(peer)).toBe("a");
    expect(await peer.response()).toEqual([1, 9, "a bang: failed precondition"]);
  });

  test("of requests are answered with one response", async () => {
    const peer = await server.serve(handlers);
    peer.send(1, REQUEST, Flag.remoteOpen, request("Join", text("a")));
    peer.send(1, DATA, 0, body("b"));
    peer.send(1, DATA, Flag.remoteClosed, body("c"));
    expect(await peer.response()).toEqual([1, 0, "abc"]);
  });

  test("of requests that end at once are empty", async () => {
    const peer = await server.serve(handlers);
    peer.send(1, REQUEST, Flag.remoteClosed, request("Join"));
    expect(await peer.response()).toEqual([1, 0, ""]);
  });

  test("both ways may take turns, and end before the client's", async () => {
    const peer = await server.serve(handlers);
    peer.send(1, REQUEST, Flag.remoteOpen, request("Both"));
    peer.send(1, DATA, 0, body("x"));
    expect(await next(peer)).toBe("xx");
    peer.send(1, DATA, 0, body("y"));
    expect(await next(peer)).toBe("yy");
    peer.send(1, DATA, 0, body("end"));
    expect(await next(peer)).toEqual([DATA, Flag.remoteClosed | Flag.noData]);
    // What the client had sent before it knew is no error.
    peer.send(1, DATA, 0, body("z"));
    peer.send(3, REQUEST, Flag.remoteClosed, request("Join"));
    expect(await peer.response()).toEqual([3, 0, ""]);
    expect(server.failures).toEqual([]);
  });

  test("an empty message is a message, unless there is no data", async () => {
    const seen: string[] = [];
    const peer = await server.serve({
      async join(inputs) {
        for await (const { typeUrl } of inputs) seen.push(typeUrl);
        return {};
      },
    });
    peer.send(1, REQUEST, Flag.remoteOpen, request("Join"));
    peer.send(1, DATA, 0);
    peer.send(1, DATA, Flag.noData);
    peer.send(1, DATA, Flag.noData | Flag.remoteClosed);
    await peer.response();
    expect(seen).toEqual([""]);
  });

  test("of requests reject in the handler when the client is gone", async () => {
    const seen = Promise.withResolvers<unknown>();
    const peer = await server.serve({
      async join(inputs) {
        try {
          for await (const { typeUrl } of inputs) expect(typeUrl).toBe("a");
        } catch (error) {
          seen.resolve(error);
        }
        return {};
      },
    });
    peer.send(1, REQUEST, Flag.remoteOpen, request("Join", text("a")));
    peer.socket.destroy();
    expect(await seen.promise).toEqual(new TtrpcError(14, "the peer closed the ttrpc connection"));
  });

  test("a call that takes one request is broken off by more", async () => {
    const seen = Promise.withResolvers<CallContext>();
    const peer = await server.serve({ one: (_, context) => aborted(context.signal).then(() => seen.resolve(context) ?? {}) });
    peer.send(1, REQUEST, 0, request("One"));
    peer.send(1, DATA, 0, body("more"));
    expect(await peer.response()).toEqual([1, 3, "test.Echo/One takes one request: invalid argument"]);
    expect((await seen.promise).signal.reason).toMatchObject({ grpcCode: GrpcCode.canceled });
  });
});

describe("close", () => {
  test("answers what is going on, takes nothing more, and lets the client hang up", async () => {
    const gate = Promise.withResolvers<object>();
    const begun = Promise.withResolvers<void>();
    const peer = await server.serve({ one: () => (begun.resolve(), gate.promise), none: () => {} });
    peer.send(1, REQUEST, 0, request("One"));
    await begun.promise;
    const closing = server.ttrpc.close(60_000);
    peer.send(3, REQUEST, 0, request("None"));
    expect(await peer.response()).toEqual([3, 14, "the server is closing: unavailable"]);
    gate.resolve(text("done"));
    expect(await peer.response()).toEqual([1, 0, "done"]);
    // The connection outlives the last answer: a client in Go that met both at once might take the end for the outcome.
    peer.send(5, REQUEST, 0, request("None"));
    expect(await peer.response()).toEqual([5, 14, "the server is closing: unavailable"]);
    peer.socket.end();
    await closing;
    await expect(dial(server.path)).rejects.toThrow("ENOENT");
  });

  test("takes a call that is for the end all the same", async () => {
    const peer = await server.serve({ none: () => {} }, ["none"]);
    const closing = server.ttrpc.close(60_000);
    peer.send(1, REQUEST, 0, request("One"));
    expect(await peer.response()).toMatchObject([1, 12, expect.stringContaining("One")]);
    peer.send(3, REQUEST, 0, request("None"));
    expect(await peer.receive()).toMatchObject({ streamId: 3, type: FrameType.response });
    peer.socket.end();
    await closing;
  });

  test("hangs up on a client that does not go", async () => {
    const peer = await server.serve({ one: () => text("done") });
    peer.send(1, REQUEST, 0, request("One"));
    expect(await peer.response()).toEqual([1, 0, "done"]);
    await server.ttrpc.close(1);
    expect(await peer.receive()).toBeUndefined();
  });

  test("hangs up on a client that has already gone", async () => {
    const peer = await server.serve({});
    peer.socket.destroy();
    await server.ttrpc.close(60_000);
  });

  test("aborts what does not end in time", async () => {
    const begun = Promise.withResolvers<AbortSignal>();
    const peer = await server.serve({ one: (_, { signal }) => (begun.resolve(signal), new Promise(() => {})) });
    peer.send(1, REQUEST, 0, request("One"));
    const signal = await begun.promise;
    await server.ttrpc.close(1);
    expect(signal.reason).toEqual(new TtrpcError(14, "the server is closing"));
    expect(await peer.receive()).toBeUndefined();
  });

  test("does not wait for a client that does not read its answers", async () => {
    const peer = await server.serve({ one: () => ({ value: Buffer.alloc(4_000_000) }) });
    peer.socket.pause();
    peer.send(1, REQUEST, 0, request("One"));
    await sleep(0);
    await server.ttrpc.close(10);
  });
});

test("a service is registered once", () => {
  server.ttrpc.register(EchoDefinition, {});
  expect(() => server.ttrpc.register(EchoDefinition, {})).toThrow(new HuskError("internal", "test.Echo is registered twice"));
});

function raise(error: Error): never {
  throw error;
}
