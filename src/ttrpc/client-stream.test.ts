import { afterEach, beforeEach, expect, test } from "vitest";
import { HuskError } from "../errors.ts";
import { Any } from "../gen/google/protobuf/any.ts";
import { Flag, FrameType } from "./frame.ts";
import { collect, EchoDefinition, failure, refusal, TestClient, text } from "./scripted-peer.ts";

let client: TestClient;

beforeEach(async () => {
  client = await TestClient.open();
});

afterEach(() => client.close());

test("streams of every kind", async () => {
  await using _ = await client.serve({
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
  expect(await collect(client.ttrpc.stream(EchoDefinition, "split", { typeUrl: "xyz" }))).toEqual([text("x"), text("y"), text("z")]);
  expect(await client.ttrpc.call(EchoDefinition, "join", letters())).toEqual(text("abc"));
  expect(await collect(client.ttrpc.stream(EchoDefinition, "both", letters()))).toEqual([text("A"), text("B"), text("C")]);
  const before: Any[] = [];
  expect(await failure(collect(client.ttrpc.stream(EchoDefinition, "split", { typeUrl: "x!y" }), before))).toMatchObject({
    code: "wrong-state",
    message: "a bang",
  });
  expect(before).toEqual([text("x"), text("!")]);
});

test("a conversation in turns", async () => {
  await using _ = await client.serve({
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
  const answers = client.ttrpc.stream(EchoDefinition, "both", questions());
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
  await using _ = await client.serve({
    async *split() {
      for (let index = 0; index < total; index++) yield { typeUrl: String(index), value: Buffer.alloc(10_000) };
    },
  });
  let next = 0;
  for await (const { typeUrl } of client.ttrpc.stream(EchoDefinition, "split", {})) {
    expect(typeUrl).toBe(String(next++));
    if (next % 100 === 0) await new Promise((resolve) => void setImmediate(resolve));
  }
  expect(next).toBe(total);
});

test("a stream that is left early does not stop the others", async () => {
  await using _ = await client.serve({
    async *split() {
      for (let index = 0; index < 1000; index++) yield { value: Buffer.alloc(10_000) };
    },
    none: () => {},
  });
  for await (const { value } of client.ttrpc.stream(EchoDefinition, "split", {})) {
    expect(value.length).toBe(10_000);
    break;
  }
  expect(await client.ttrpc.call(EchoDefinition, "none", {})).toEqual({});
});

test("a source of requests that fails, fails the call, and ends the server's stream", async () => {
  const seen = Promise.withResolvers<number>();
  await using _ = await client.serve({
    async join(inputs) {
      seen.resolve((await collect(inputs)).length);
      return {};
    },
  });
  async function* failing() {
    yield { typeUrl: "one" };
    throw new HuskError("host", "no more");
  }
  expect(await failure(client.ttrpc.call(EchoDefinition, "join", failing()))).toEqual(new HuskError("host", "no more"));
  expect(await seen.promise).toBe(1);
});

test("a stream's time limit and signal end its reading", async () => {
  await using _ = await client.serve({
    async *split(_, { signal }) {
      yield { typeUrl: "one" };
      await new Promise((resolve) => signal.addEventListener("abort", resolve));
    },
  });
  const options = { timeoutMs: 20 };
  expect(await failure(collect(client.ttrpc.stream(EchoDefinition, "split", {}, options)))).toMatchObject({ grpcCode: 4 });
  const controller = new AbortController();
  const stream = client.ttrpc.stream(EchoDefinition, "split", {}, { signal: controller.signal });
  await stream.next();
  controller.abort(new HuskError("deadline", "given up"));
  expect(await failure(stream.next())).toEqual(new HuskError("deadline", "given up"));
});

test("a stream ends with a response too, and Data may carry the last message", async () => {
  const peer = await client.play();
  const first = collect(client.ttrpc.stream(EchoDefinition, "split", {}));
  const second = collect(client.ttrpc.stream(EchoDefinition, "split", {}));
  expect(await peer.receive()).toMatchObject({ streamId: 1, flags: Flag.remoteClosed });
  const message = Any.encode(text("x")).finish();
  peer.send(1, FrameType.data, 0, message);
  peer.send(1, FrameType.response, 0);
  peer.send(3, FrameType.data, Flag.remoteClosed, message);
  expect(await Promise.all([first, second])).toEqual([[text("x")], [text("x")]]);
});

test("nothing is sent on a stream that the server has ended; one that was given up is ended", async () => {
  const peer = await client.play();
  const gates = [Promise.withResolvers<void>(), Promise.withResolvers<void>()];
  const sources = gates.map(async function* ({ promise }) {
    yield { typeUrl: "one" };
    await promise;
    yield { typeUrl: "two" };
  });
  const [first, second] = sources.map((source, index) =>
    failure(client.ttrpc.call(EchoDefinition, "join", source, index === 0 ? {} : { timeoutMs: 1 })),
  );
  peer.send(1, FrameType.response, 0, refusal(9, "enough"));
  expect(await first).toMatchObject({ grpcCode: 9 });
  expect(await second).toMatchObject({ grpcCode: 4 });
  for (const { resolve } of gates) resolve();
  await Promise.all(sources.map((source) => source.return()));
  const { request, data } = FrameType;
  const seen: [streamId: number, type: number, flags: number][] = [];
  for (let ended = false; !ended; ) {
    const { streamId, type, flags } = (await peer.receive()) ?? { streamId: 0, type: 0, flags: Flag.remoteClosed };
    seen.push([streamId, type, flags]);
    ended = (flags & Flag.remoteClosed) !== 0;
  }
  expect(seen.filter(([streamId]) => streamId === 1)).toEqual([
    [1, request, Flag.remoteOpen],
    [1, data, 0],
  ]);
  expect(seen.filter(([streamId]) => streamId === 3)).toEqual([
    [3, request, Flag.remoteOpen],
    [3, data, 0],
    [3, data, Flag.remoteClosed | Flag.noData],
  ]);
});
