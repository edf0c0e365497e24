import { mkdtempSync, rmSync } from "node:fs";
import { connect, createServer, type Socket } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, expect, test } from "vitest";
import { Session } from "./session.ts";

let folder: string;
let sockets: Socket[];
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), "husk-session-"));
  sockets = [];
});
afterEach(() => {
  for (const socket of sockets) socket.destroy();
  rmSync(folder, { recursive: true });
});

/** Both ends of a connection. */
async function pair(name: string): Promise<[Socket, Socket]> {
  const path = join(folder, name);
  const server = createServer({ allowHalfOpen: true });
  const accepted = new Promise<Socket>((resolve) => server.once("connection", resolve));
  await new Promise<void>((resolve) => server.listen(path, resolve));
  const dialled = connect({ path, allowHalfOpen: true });
  const both: [Socket, Socket] = [dialled, await accepted];
  server.close();
  sockets.push(...both);
  return both;
}

async function session(): Promise<{ readonly session: Session; readonly front: Socket }> {
  const [front, ours] = await pair("front");
  const hello = { pid: 1, terminal: { stdin: false, stdout: false, stderr: false }, size: null };
  return { session: Session.over(ours, hello), front };
}

test("front obeys whom its call was handed over to, until that has said all", async () => {
  const { session: call, front } = await session();
  const [ours, supervisor] = await pair("supervisor");
  const relayed = call.relay(ours, 10_000);
  supervisor.end('{"op":"exit","status":7}\n');
  const obeyed = new Promise<string>((resolve) => front.once("data", (data: Buffer) => resolve(data.toString())));
  expect(await relayed).toBe(true);
  expect(await obeyed).toBe('{"op":"exit","status":7}\n');
});

test("one that goes without a word is told from one that says nothing", async () => {
  const { session: call } = await session();
  const [gone, supervisor] = await pair("gone");
  const relayed = call.relay(gone, 10_000);
  supervisor.destroy();
  expect(await relayed).toBe(false);

  const [silent] = await pair("silent");
  await expect(call.relay(silent, 1)).rejects.toMatchObject({
    code: "deadline",
    message: "the wait for the supervisor's first word did not end within 1 ms",
  });
  expect(silent.destroyed).toBe(true);
});

test("what is to be printed after front has become the stand-in waits for the way to it", async () => {
  const { session: call, front } = await session();
  const heard: string[] = [];
  front.on("data", (data: Buffer) => heard.push(data.toString()));
  call.print("before\n", "stderr");
  call.attach({ socket: "/s", token: "t", detach: false });
  call.print("between\n", "stderr");
  const said: string[] = [];
  call.printBy((text) => said.push(text));
  call.print("after\n", "stderr");
  await call.close();
  await new Promise((resolve) => front.once("end", resolve).resume());
  expect(said).toEqual(["between\n", "after\n"]);
  expect(heard.join("")).toBe(
    '{"op":"print","text":"before\\n","stream":"stderr"}\n{"op":"attach","socket":"/s","token":"t","detach":false}\n',
  );
});
