import { once } from "node:events";
import { mkdtempSync, rmSync } from "node:fs";
import { connect, createServer, type Server, type Socket } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, expect, test } from "vitest";
import { type Placement, StandIn, type StandInEvents } from "./stand-in.ts";

const placement: Placement = {
  netns: "/proc/1/ns/net",
  beside: null,
  rootfs: "/b/rootfs",
  cgroups: [],
  streams: ["stdin", "stdout"],
  terminal: true,
  consoleSocket: null,
  size: null,
  title: ["sh", "-c", "true"],
};

let folder: string;
let ours: Socket;
let theirs: Socket;
let server: Server;

/** Two ends of a unix socket: the supervisor's, and a scripted stand-in's. */
beforeEach(async () => {
  folder = mkdtempSync(join(tmpdir(), "husk-stand-in-"));
  server = createServer({ allowHalfOpen: true });
  const listening = once(server.listen(join(folder, "s")), "listening");
  await listening;
  const accepted = once(server, "connection");
  theirs = connect(join(folder, "s"));
  [ours] = (await accepted) as [Socket];
  theirs.setEncoding("utf8");
});
afterEach(() => {
  ours.destroy();
  theirs.destroy();
  server.close();
  rmSync(folder, { recursive: true });
});

function standIn(events: Partial<StandInEvents> = {}): StandIn {
  const made = new StandIn({ signal: () => {}, resize: () => {}, lost: () => {}, ...events });
  made.attach("control", ours, 77);
  return made;
}

async function nextLine(): Promise<unknown> {
  const [line] = (await once(theirs, "data")) as [string];
  return JSON.parse(line);
}

test("it is sent to its place, and answers with its terminal's size", async () => {
  const placed = standIn().place(placement);
  expect(await nextLine()).toMatchObject({
    op: "place",
    netns: "/proc/1/ns/net",
    rootfs: "/b/rootfs",
    streams: ["stdin", "stdout"],
    title: ["sh", "-c", "true"],
  });
  theirs.write('{"op":"placed","size":{"rows":24,"columns":80}}\n');
  expect(await placed).toEqual({ rows: 24, columns: 80 });
});

test("a place it cannot reach is an error", async () => {
  const placed = standIn().place(placement);
  await nextLine();
  theirs.write('{"op":"failed","message":"cannot enter /proc/1/ns/net"}\n');
  await expect(placed).rejects.toThrow("cannot enter /proc/1/ns/net");
});

test("signals and sizes are passed on", async () => {
  const signal = Promise.withResolvers<number>();
  const size = Promise.withResolvers<object>();
  standIn({ signal: signal.resolve, resize: size.resolve });
  theirs.write('{"op":"signal","signal":15}\n{"op":"resize","size":{"rows":1,"columns":2}}\n');
  expect(await signal.promise).toBe(15);
  expect(await size.promise).toEqual({ rows: 1, columns: 2 });
});

test("one that vanishes is lost, and whoever waits for it is told", async () => {
  const lost = Promise.withResolvers<void>();
  const placed = standIn({ lost: lost.resolve }).place(placement);
  theirs.destroy();
  await lost.promise;
  await expect(placed).rejects.toThrow("the stand-in process is gone");
});

test("one that was let go is not lost", async () => {
  let lost = false;
  const made = standIn({ lost: () => (lost = true) });
  made.exit({ signal: 9 });
  expect(await nextLine()).toEqual({ op: "exit", signal: 9 });
  theirs.end();
  await once(ours, "close");
  expect(lost).toBe(false);
});

test.each([
  ["with a message", (made: StandIn) => made.fail("no VM", 125), { op: "fail", message: "no VM", status: 125 }],
  ["without a word", (made: StandIn) => made.abandon(125), { op: "exit", code: 125 }],
])("let go %s, it is not kept waiting for the end of its streams", async (_, letGo, message) => {
  const made = standIn();
  const accepting = once(server, "connection");
  const stream = connect(join(folder, "s"));
  const [accepted] = (await accepting) as [Socket];
  made.attach("stdout", accepted, undefined);
  const ended = once(stream.resume(), "end");
  letGo(made);
  expect(await nextLine()).toEqual(message);
  await ended;
  stream.destroy();
});
