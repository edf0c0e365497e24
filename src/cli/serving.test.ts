/** Calls as a supervisor serves them: a scripted front on a real control socket, and a container that makes and does what it is told. */
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { connect } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, expect, it } from "vitest";
import { HuskError } from "../errors.ts";
import { readJsonLines, writeJsonLine } from "../host/lines.ts";
import { identify } from "../host/process-identity.ts";
import type { Container, ExecSpec } from "../sandbox/container.ts";
import { type ControlServer, serveControl } from "../sandbox/control.ts";
import { claimContainer, readRecord, writeRecord } from "../sandbox/record.ts";
import type { RunFolder } from "../sandbox/run-folder.ts";
import { serveExec } from "./exec.ts";
import { type Served, serveVerb } from "./serve-verb.ts";

type Message = Readonly<Record<string, unknown>>;

let work: string;
let folder: RunFolder;
let server: ControlServer;
let made: ExecSpec[];
let running: () => Promise<number>;
let callerGone: AbortSignal | undefined;
let called: unknown[];
let carryOut: Served["call"];
let hasHooksAtStart: boolean;

const container = {
  exec: (spec: ExecSpec, gone: AbortSignal) => {
    made.push(spec);
    callerGone = gone;
    return { token: "t1", execId: "exec-1" };
  },
  execStarted: () => running(),
} as unknown as Container;

beforeEach(async () => {
  work = mkdtempSync(join(tmpdir(), "husk-serve-exec-"));
  made = [];
  called = [];
  hasHooksAtStart = false;
  carryOut = async (method, params) => {
    called.push([method, params]);
    return {};
  };
  running = async () => 4711;
  folder = claimContainer(join(work, "root"), {
    version: 1,
    ociVersion: "1.2.1",
    id: "box",
    status: "running",
    pid: process.pid,
    pidStart: 1,
    supervisor: identify(process.pid) ?? null,
    bundle: work,
    rootfs: join(work, "rootfs"),
    created: "2026-01-01T00:00:00Z",
    owner: "root",
    annotations: {},
    terminal: false,
    foreground: false,
    poststop: [],
  });
  const init = { user: { uid: 0, gid: 0 }, args: ["init"], cwd: "/" };
  writeFileSync(join(work, "config.json"), JSON.stringify({ ociVersion: "1.2.0", root: { path: "rootfs" }, process: init }));
  server = await serveControl(folder.socket, {
    call: () => {
      throw new Error("no call was expected");
    },
    attach: (_, socket) => socket.destroy(),
    session: (request, front) => {
      if (request["session"] === "exec") void serveExec(request, front, container, folder.socket);
      else void serveVerb(request, front, { socket: folder.socket, hasHooksAtStart, call: (...call) => carryOut(...call) });
    },
  });
});
afterEach(async () => {
  await server.close();
  rmSync(work, { recursive: true });
});

const hello = { pid: 4242, terminal: { stdin: true, stdout: true, stderr: false }, size: { rows: 24, columns: 80 } };

/** What front is told from its request to the end of the conversation. `onTold`: at each message, with a way to hang up. */
function ask(request: object, onTold: (hangUp: () => void) => void = () => {}): Promise<Message[]> {
  const front = connect(folder.socket);
  writeJsonLine(front, { session: "exec", cwd: work, hello, ...request });
  const told: Message[] = [];
  return new Promise((resolve) => {
    const onMessage = (message: Message): void => {
      told.push(message);
      onTold(() => front.destroy());
    };
    readJsonLines(front, "the supervisor", onMessage, () => resolve(told));
  });
}

it("has front become the stand-in; relative paths begin where front is", async () => {
  expect(await ask({ words: ["--root", "root", "exec", "--pid-file", "pid", "-d", "box", "ls", "-l"] })).toEqual([
    { op: "attach", socket: folder.socket, token: "t1", detach: true },
    { op: "exit", status: 0 },
  ]);
  expect(readFileSync(join(work, "pid"), "utf8")).toBe("4711");
  expect(made).toMatchObject([{ terminal: false, size: { rows: 24, columns: 80 } }]);
  expect(JSON.parse(made[0]?.processJson ?? "")).toMatchObject({ args: ["ls", "-l"] });
});

it("leaves to the stand-in what keeps a program from running, and writes it to the caller's log", async () => {
  running = () => Promise.reject(new HuskError("program-not-found", "nope"));
  const words = ["--root", "root", "--log", "log", "exec", "box", "ls"];
  expect((await ask({ words })).map(({ op }) => op)).toEqual(["attach"]);
  expect(readFileSync(join(work, "log"), "utf8")).toMatch(/level=error msg="nope"\n$/);
});

it("reports a failure before there is a stand-in", async () => {
  const words = ["--root", "root", "exec", "--pid-file", "/no/such/folder/pid", "box", "ls"];
  expect(await ask({ words })).toMatchObject([{ op: "fail", message: expect.stringContaining("cannot write the PID file"), status: 255 }]);
  expect(made).toEqual([]);
});

it.each([
  ["another container", { words: ["--root", "root", "exec", "other", "ls"] }],
  ["another root", { words: ["--root", "elsewhere", "exec", "box", "ls"] }],
  ["a mistake", { words: ["--root", "root", "exec", "--tyy", "box", "ls"] }],
  ["help", { words: ["exec", "--help"] }],
  ["no words", { words: [1] }],
])("declines %s: Node has the words for it", async (_, request) => {
  expect(await ask(request)).toEqual([{ op: "decline" }]);
  expect(made).toEqual([]);
});

it("ends the conversation with a front that does not say who it is", async () => {
  // The supervisor program ends it where this rejects.
  await expect(serveExec({ words: [] }, connect(folder.socket).destroy(), container, folder.socket)).rejects.toThrow(
    "this command needs husk's front",
  );
});

it("tells the container where front is gone", async () => {
  const started = Promise.withResolvers<number>();
  running = () => started.promise;
  await ask({ words: ["--root", "root", "exec", "box", "ls"] }, (hangUp) => hangUp());
  await new Promise<void>((resolve) => {
    if (callerGone?.aborted === true) resolve();
    else callerGone?.addEventListener("abort", () => resolve());
  });
  started.reject(new HuskError("host", "gone"));
});

it.each([
  ["kill", ["kill", "--all", "box", "USR1"], { signal: 10, all: true }],
  ["kill", ["kill", "box"], { signal: 15, all: false }],
  ["start", ["start", "box"], {}],
  ["pause", ["pause", "box"], {}],
])("carries out %s", async (method, words, params) => {
  if (method === "start") writeRecord(folder, { ...readRecord(join(work, "root"), "box"), status: "created" });
  expect(await ask({ session: "verb", words: ["--root", "root", ...words] })).toEqual([{ op: "take" }, { op: "exit", status: 0 }]);
  expect(called).toEqual([[method, params]]);
});

it("prints the state", async () => {
  const [printed, ended] = await ask({ session: "verb", words: ["--root", "root", "state", "box"] });
  expect(printed).toMatchObject({ op: "print", stream: "stdout" });
  expect(JSON.parse(String(printed?.["text"]))).toMatchObject({ id: "box", status: "running", bundle: work });
  expect(ended).toEqual({ op: "exit", status: 0 });
});

it("says what keeps a verb from being carried out, in the caller's log as well", async () => {
  carryOut = () => Promise.reject(new HuskError("guest", "nobody answers"));
  const words = ["--root", "root", "--log", "log", "kill", "box", "KILL"];
  const message = "error sending signal KILL: nobody answers";
  expect(await ask({ session: "verb", words })).toEqual([{ op: "take" }, { op: "fail", message, status: 1 }]);
  expect(readFileSync(join(work, "log"), "utf8")).toContain(`msg="${message}"`);
});

it("says that the container's state does not allow it, in the words that engines look for", async () => {
  expect(await ask({ session: "verb", words: ["--root", "root", "resume", "box"] })).toEqual([
    { op: "take" },
    { op: "fail", message: expect.stringContaining("not paused"), status: 1 },
  ]);
  expect(called).toEqual([]);
});

it.each([
  ["another container", ["--root", "root", "kill", "other"]],
  ["a mistake", ["--root", "root", "kill", "--al", "box"]],
  ["one who wants to know more", ["--root", "root", "--debug", "kill", "box"]],
  ["a verb that is not for it", ["--root", "root", "delete", "box"]],
  ["a start with hooks", ["--root", "root", "start", "box"]],
])("declines %s", async (_, words) => {
  hasHooksAtStart = true;
  expect(await ask({ session: "verb", words })).toEqual([{ op: "decline" }]);
  expect(called).toEqual([]);
});
