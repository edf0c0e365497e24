/** The program itself, where no sandbox is needed: its output, its errors and its exit statuses, beside a scripted supervisor. */
import { execFile } from "node:child_process";
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { HuskError } from "../errors.ts";
import { identify } from "../host/process-identity.ts";
import { type ControlHandlers, type ControlServer, serveControl } from "../sandbox/control.ts";
import { type ContainerRecord, claimContainer, writeRecord } from "../sandbox/record.ts";
import type { RunFolder } from "../sandbox/run-folder.ts";

const program = fileURLToPath(new URL("main.ts", import.meta.url));

interface Ended {
  readonly status: number;
  readonly stdout: string;
  readonly stderr: string;
}

let root: string;
let server: ControlServer | undefined;
beforeEach(() => {
  root = mkdtempSync(join(tmpdir(), "husk-main-"));
});
afterEach(async () => {
  await server?.close();
  server = undefined;
  rmSync(root, { recursive: true });
});

function husk(...words: string[]): Promise<Ended> {
  return new Promise((resolve) => {
    const child = execFile(process.execPath, [program, "--root", root, ...words], (_, stdout, stderr) => {
      resolve({ status: child.exitCode ?? -1, stdout, stderr });
    });
  });
}

const record: ContainerRecord = {
  version: 1,
  ociVersion: "1.2.1",
  id: "box",
  status: "running",
  pid: 4711,
  pidStart: 1,
  supervisor: identify(process.pid) ?? null,
  bundle: "/b",
  rootfs: "/b/rootfs",
  created: "2026-01-01T00:00:00.000Z",
  owner: "root",
  annotations: { a: "b" },
  terminal: false,
  foreground: false,
  poststop: [],
};

async function claim(change: Partial<ContainerRecord> = {}, call?: ControlHandlers["call"]): Promise<RunFolder> {
  const folder = claimContainer(root, { ...record, ...change });
  if (call !== undefined) server = await serveControl(folder.socket, { call, attach: (_, socket) => socket.destroy() });
  return folder;
}

describe("from disk", () => {
  it("state and list print what runc prints", async () => {
    await claim();
    const state = `{"ociVersion":"1.2.1","id":"box","pid":4711,"status":"running","bundle":"/b","rootfs":"/b/rootfs","created":"2026-01-01T00:00:00.000Z","annotations":{"a":"b"},"owner":"root"}`;
    expect(await husk("state", "box")).toEqual({ status: 0, stdout: `${JSON.stringify(JSON.parse(state), undefined, 2)}\n`, stderr: "" });
    expect((await husk("list", "-f", "json")).stdout).toBe(`[${state}]\n`);
    expect((await husk("list", "-q")).stdout).toBe("box\n");
    expect((await husk("list")).stdout).toBe(
      [
        "ID          PID         STATUS      BUNDLE      CREATED                    OWNER\n",
        "box         4711        running     /b          2026-01-01T00:00:00.000Z   root\n",
      ].join(""),
    );
  });

  it("state tells how a container ended", async () => {
    await claim({ status: "stopped", pid: 0, supervisor: null, exit: { code: 3, at: "2026-01-02T00:00:00.000Z" } });
    const state = JSON.parse((await husk("state", "box")).stdout) as object;
    expect(state).toMatchObject({ status: "stopped", pid: 0, exit: { code: 3, at: "2026-01-02T00:00:00.000Z" } });
  });

  it("list goes on past a record that it cannot read", async () => {
    await claim();
    const broken = await claim({ id: "broken" });
    writeFileSync(broken.state, "");
    const { status, stdout, stderr } = await husk("list", "-q");
    expect([status, stdout]).toEqual([0, "box\n"]);
    expect(stderr).toContain(`husk: warning: the state of container "broken" in ${broken.state} cannot be read`);
  });

  it("the json of ps is the PID that stands for the container", async () => {
    await claim();
    expect(await husk("ps", "-f", "json", "box")).toEqual({ status: 0, stdout: "[4711]\n", stderr: "" });
  });

  it("spec writes a bundle's config.json, and never over another", async () => {
    expect(await husk("spec", "-b", root)).toEqual({ status: 0, stdout: "", stderr: "" });
    expect(JSON.parse(readFileSync(join(root, "config.json"), "utf8"))).toMatchObject({ process: { args: ["sh"] } });
    const again = await husk("spec", "--bundle", root);
    expect(again).toEqual({ status: 1, stdout: "", stderr: `husk: ${root}/config.json exists; remove it first\n` });
    expect((await husk("spec", "-b", join(root, "none"))).stderr).toBe(`husk: ${root}/none is no folder\n`);
  });

  it("logs prints the run folder's files", async () => {
    const folder = await claim({ status: "stopped", supervisor: null });
    writeFileSync(folder.console, "[    0.0] Linux\x1b[2J\n");
    writeFileSync(folder.supervisorLog, "{}\n");
    expect((await husk("logs", "--guest", "box")).stdout).toBe("[    0.0] Linux\n");
    expect((await husk("logs", "--follow", "box")).stdout).toBe("{}\n");
  });
});

describe("through the supervisor", () => {
  it("start, pause, resume and kill are calls", async () => {
    const asked: unknown[] = [];
    const folder = await claim({}, (method, params) => void asked.push([method, params]));
    const quiet = { status: 0, stdout: "", stderr: "" };
    expect(await husk("kill", "--all", "box", "USR1")).toEqual(quiet);
    expect(await husk("kill", "box")).toEqual(quiet);
    expect(await husk("kill", "box", "0")).toEqual(quiet);
    expect(await husk("pause", "box")).toEqual(quiet);
    writeRecord(folder, { ...record, status: "paused" });
    expect(await husk("resume", "box")).toEqual(quiet);
    writeRecord(folder, { ...record, status: "created" });
    expect(await husk("start", "box")).toEqual(quiet);
    expect(asked).toEqual([
      ["kill", { signal: 10, all: true }],
      ["kill", { signal: 15, all: false }],
      ["pause", {}],
      ["resume", {}],
      ["start", {}],
    ]);
  });

  it("the error that comes back has its message and its exit status", async () => {
    await claim({ status: "created" }, () => {
      throw new HuskError("program-not-found", `exec: "nope": executable file not found in $PATH`);
    });
    expect(await husk("start", "box")).toEqual({
      status: 1,
      stdout: "",
      stderr: `husk: exec: "nope": executable file not found in $PATH\n`,
    });
  });

  it("a container that ends meanwhile is one that does not run, in the words that engines know", async () => {
    const folder = await claim({}, async () => {
      writeRecord(folder, { ...record, status: "stopped", supervisor: null });
      await server?.close();
    });
    const { status, stderr } = await husk("kill", "box", "9");
    expect(status).toBe(1);
    expect(stderr).toContain("husk: error sending signal 9: container not running: box");
  });

  it("ps prints the guest's processes, and refuses nonsense from the guest", async () => {
    const found = {
      pid: 9,
      parentPid: 1,
      uid: 0,
      state: "S",
      startUnixMs: 0,
      cpuMs: 61_000,
      residentBytes: 1,
      terminal: "?",
      command: "sh",
    };
    let answer: object = { processes: [{ ...found, processId: "", containerPid: 1 }] };
    await claim({}, () => answer);
    expect((await husk("ps", "box")).stdout).toMatch(/^UID +PID +PPID +C +STIME +TTY +TIME +CMD\nroot +9 +1 +0 +\w+ +\? +00:01:01 +sh\n$/);
    expect(JSON.parse((await husk("ps", "-f", "details", "box")).stdout)).toMatchObject([{ pid: 9, containerPid: 1 }]);
    answer = { processes: [{ pid: "9" }] };
    expect(await husk("ps", "box")).toEqual({
      status: 1,
      stdout: "",
      stderr: `husk: the guest's list of processes cannot be read: [0].pid: expected a whole number of at least 0, got "9"\n`,
    });
  });
});

describe("errors", () => {
  it.each([
    [["state", "nope"], 1, `container "nope" does not exist`],
    [["delete", "nope"], 1, `container "nope" does not exist`],
    [["kill", "nope", "9"], 1, `error sending signal 9: container "nope" does not exist`],
    [["state", "a/b"], 1, `invalid container ID format: "a/b" (letters, digits and _ + - . are allowed)`],
    [["list", "-f", "xml"], 1, `--format: expected table or json, got "xml"`],
    [["sttae"], 1, `unknown command "sttae"; did you mean state?`],
  ])("%j ends with %d", async (words, status, message) => {
    expect(await husk(...words)).toEqual({ status, stdout: "", stderr: `husk: ${message}\n` });
  });

  it.each([
    ["kill", "error sending signal TERM: container not running: box"],
    ["start", "cannot start a container that has stopped: box"],
    ["pause", "container not running: box: stopped"],
  ])("%s of a container that has stopped", async (verb, message) => {
    await claim({ status: "stopped", supervisor: null });
    expect(await husk(verb, "box")).toEqual({ status: 1, stdout: "", stderr: `husk: ${message}\n` });
  });

  it("ps of a container that has stopped has nothing to show, which is no error", async () => {
    await claim({ status: "stopped", supervisor: null });
    expect(await husk("ps", "box")).toEqual({ status: 0, stdout: "UID  PID  PPID  C  STIME  TTY  TIME  CMD\n", stderr: "" });
    expect(await husk("ps", "-f", "json", "box")).toEqual({ status: 0, stdout: "[]\n", stderr: "" });
  });

  it("kill --all of a container that has stopped has nothing to do, which is no error", async () => {
    await claim({ status: "stopped", supervisor: null });
    expect(await husk("kill", "--all", "box", "9")).toEqual({ status: 0, stdout: "", stderr: "" });
    expect((await husk("kill", "--all", "nope", "9")).status).toBe(1);
  });

  it("are in the log as well, as the JSON that engines read", async () => {
    const log = join(root, "log.json");
    await husk("--log", log, "--log-format", "json", "state", "nope");
    await husk("--log", log, "--log-format=json", "delete", "--forec", "nope");
    const lines = readFileSync(log, "utf8").trimEnd().split("\n");
    expect(lines.map((line) => JSON.parse(line) as object)).toEqual([
      { level: "error", msg: `container "nope" does not exist`, time: expect.stringMatching(/^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ$/) },
      { level: "error", msg: `unknown flag --forec for "delete"; did you mean --force?`, time: expect.any(String) },
    ]);
  });

  it("a log that cannot be written is told of before anything is done", async () => {
    const { status, stderr } = await husk("--log", "/no/such/folder/log", "list");
    expect(status).toBe(1);
    expect(stderr).toMatch(/^husk: cannot write the log \/no\/such\/folder\/log: ENOENT[^\n]*\n$/);
  });
});

it("delete --force of an unknown container is no error", async () => {
  expect(await husk("delete", "--force", "nope")).toEqual({ status: 0, stdout: "", stderr: "" });
});
