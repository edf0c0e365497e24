/** `husk exec` as front starts it: the real program on a real socket pair, with a scripted front, a scripted supervisor and a scripted stand-in. */
import { type ChildProcess, spawn } from "node:child_process";
import { existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import type { Duplex } from "node:stream";
import { text } from "node:stream/consumers";
import { fileURLToPath } from "node:url";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { HuskError } from "../errors.ts";
import { readJsonLines, writeJsonLine } from "../host/lines.ts";
import { identify } from "../host/process-identity.ts";
import { type ControlHandlers, type ControlServer, serveControl } from "../sandbox/control.ts";
import { type ContainerRecord, claimContainer, writeRecord } from "../sandbox/record.ts";
import type { RunFolder } from "../sandbox/run-folder.ts";
import { pathOfCaller } from "./exec.ts";

const program = fileURLToPath(new URL("main.ts", import.meta.url));

let work: string;
let root: string;
let folder: RunFolder;
let record: ContainerRecord;
let server: ControlServer | undefined;

beforeEach(() => {
  work = mkdtempSync(join(tmpdir(), "husk-exec-"));
  root = join(work, "root");
  record = {
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
  };
  folder = claimContainer(root, record);
  const init = { user: { uid: 0, gid: 0 }, args: ["init"], cwd: "/" };
  writeFileSync(join(work, "config.json"), JSON.stringify({ ociVersion: "1.2.0", root: { path: "rootfs" }, process: init }));
});
afterEach(async () => {
  await server?.close();
  server = undefined;
  rmSync(work, { recursive: true });
});

type Call = (method: string, params: Readonly<Record<string, unknown>>) => object | Promise<object>;

async function serve(call: Call): Promise<void> {
  const handlers: ControlHandlers = { attach: (_, socket) => socket.destroy(), call };
  server = await serveControl(folder.socket, handlers);
}

interface Told {
  /** What front was told, in order. */
  readonly front: readonly Readonly<Record<string, unknown>>[];
  readonly stderr: string;
  readonly status: number | null;
}

/** Runs `husk exec ...` to its end. */
async function exec(
  words: readonly string[],
  onTold: (message: object, front: Duplex, child: ChildProcess) => void = () => {},
): Promise<Told> {
  const child = spawn(process.execPath, [program, "--root", root, "--log", join(work, "log"), "--log-format", "json", "exec", ...words], {
    stdio: ["ignore", "ignore", "pipe", "pipe"],
  });
  const front = child.stdio[3] as Duplex;
  const told: Readonly<Record<string, unknown>>[] = [];
  const silent = new Promise<void>((resolve) => {
    const onEnd = (): void => resolve();
    readJsonLines(front, "the child", (message) => (told.push(message), onTold(message, front, child)), onEnd);
  });
  writeJsonLine(front, { op: "hello", pid: 4242, terminal: { stdin: true, stdout: true, stderr: false }, size: { rows: 24, columns: 80 } });
  const status = new Promise<number | null>((resolve) => child.once("exit", resolve));
  const stderr = child.stderr === null ? "" : await text(child.stderr);
  await silent;
  front.destroy();
  return { front: told, stderr, status: await status };
}

function logged(): string[] {
  if (!existsSync(join(work, "log"))) return [];
  return readFileSync(join(work, "log"), "utf8")
    .trimEnd()
    .split("\n")
    .map((line) => (JSON.parse(line) as { msg: string }).msg);
}

describe("a program that runs", () => {
  it("is made by the supervisor, carried by front, and its PID file is there before front goes on", async () => {
    const asked: unknown[] = [];
    await serve((method, params) => {
      asked.push([method, params]);
      return method === "exec" ? { token: "t1", execId: "exec-1" } : { pid: 4711 };
    });
    const pidFile = join(work, "pid");
    let pidAtExit: string | undefined;
    const { front, stderr, status } = await exec(["-d", "--pid-file", pidFile, "box", "ls", "-l"], (message) => {
      if ("op" in message && message.op === "exit") pidAtExit = readFileSync(pidFile, "utf8");
    });
    expect(front).toEqual([
      { op: "attach", socket: folder.socket, token: "t1", detach: true },
      { op: "exit", status: 0 },
    ]);
    expect(pidAtExit).toBe("4711");
    expect([stderr, status]).toEqual(["", 0]);
    expect(asked).toEqual([
      [
        "exec",
        {
          process: `{"user":{"uid":0,"gid":0,"additionalGids":[]},"args":["ls","-l"],"cwd":"/","terminal":false,"env":[]}`,
          terminal: false,
          plainNewlines: false,
          consoleSocket: null,
          size: { rows: 24, columns: 80 },
          ignorePaused: false,
          cgroup: "",
        },
      ],
      ["execStarted", { execId: "exec-1" }],
    ]);
  });

  it("in the foreground leaves the last word to the stand-in", async () => {
    await serve((method) => (method === "exec" ? { token: "t1", execId: "exec-1" } : { pid: 4242 }));
    const { front } = await exec(["-t", "box", "sh"]);
    expect(front).toEqual([{ op: "attach", socket: folder.socket, token: "t1", detach: false }]);
  });
});

describe("a program that does not run", () => {
  it("is front's to report where there is no stand-in yet", async () => {
    await serve(() => {
      throw new HuskError("wrong-state", "cannot exec in a stopped container: box");
    });
    const { front, stderr } = await exec(["box", "ls"]);
    expect(front).toEqual([{ op: "fail", message: "cannot exec in a stopped container: box", status: 255 }]);
    expect(stderr).toBe("");
    expect(logged()).toEqual(["cannot exec in a stopped container: box"]);
  });

  it("is said once, by the stand-in, where there is one", async () => {
    const message = `exec: "lz": executable file not found in $PATH`;
    await serve((method) => {
      if (method === "exec") return { token: "t1", execId: "exec-1" };
      throw new HuskError("program-not-found", message);
    });
    const pidFile = join(work, "pid");
    expect((await exec(["--pid-file", pidFile, "box", "lz"])).front.map(({ op }) => op)).toEqual(["attach"]);
    expect((await exec(["-d", "--pid-file", pidFile, "box", "lz"])).front.slice(1)).toEqual([{ op: "exit", status: 255 }]);
    expect(existsSync(pidFile)).toBe(false);
    expect(logged()).toEqual([message, message]);
  });

  it("never asks the supervisor where the call itself is wrong", async () => {
    await serve(() => {
      throw new Error("nothing was to be asked");
    });
    expect((await exec(["--tyy", "box", "ls"])).front).toEqual([
      { op: "fail", message: `unknown flag --tyy for "exec"; did you mean --tty?`, status: 255 },
    ]);
    expect((await exec(["other", "ls"])).front).toEqual([{ op: "fail", message: `container "other" does not exist`, status: 255 }]);
    writeRecord(folder, { ...record, status: "paused" });
    expect((await exec(["box", "ls"])).front).toMatchObject([
      { op: "fail", message: expect.stringContaining("paused container"), status: 255 },
    ]);
    const unwritable = await exec(["--ignore-paused", "--pid-file", "/no/such/folder/pid", "box", "ls"]);
    expect(unwritable.front).toMatchObject([
      { op: "fail", message: expect.stringContaining("cannot write the PID file /no/such/folder/pid"), status: 255 },
    ]);
  });
});

it("reads a descriptor of the caller's by front's, which has inherited it", () => {
  expect(pathOfCaller("/dev/fd/63", 4242)).toBe("/proc/4242/fd/63");
  expect(pathOfCaller("/proc/self/fd/0", 4242)).toBe("/proc/4242/fd/0");
  expect(pathOfCaller("/dev/stdin", 4242)).toBe("/proc/4242/fd/0");
  expect(pathOfCaller("/dev/fd/x", 4242)).toBe("/dev/fd/x");
  expect(pathOfCaller("/tmp/dev/fd/63", 4242)).toBe("/tmp/dev/fd/63");
});

it("prints help through front", async () => {
  expect((await exec(["--help"])).front).toEqual([
    { op: "print", stream: "stdout", text: expect.stringContaining("husk exec - run a further program in a container") },
    { op: "exit", status: 0 },
  ]);
});

it("does not wait for a program that nobody waits for any more", async () => {
  const asked = Promise.withResolvers<void>();
  await serve((method) => {
    if (method === "exec") return { token: "t1", execId: "exec-1" };
    asked.resolve();
    return new Promise(() => {});
  });
  const { status } = await exec(["box", "ls"], (_, front) => void asked.promise.then(() => front.destroy()));
  expect(status).toBe(0);
  expect(logged()).toEqual(["the process that asked for it is gone"]);
});

it("says what it needs where it is not started by front", async () => {
  const child = spawn(process.execPath, [program, "exec", "box", "ls"], { stdio: ["ignore", "ignore", "pipe"] });
  const status = new Promise((resolve) => child.once("exit", resolve));
  expect(await text(child.stderr)).toBe(
    "husk: this command needs husk's front on descriptor 3 (call it as `husk`, or as bin/husk in a checkout)\n",
  );
  expect(await status).toBe(255);
});
