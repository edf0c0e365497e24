import { existsSync, mkdirSync, mkdtempSync, readdirSync, rmSync, utimesSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, expect, it, vi } from "vitest";
import { noteInLedger } from "../host/ledger.ts";
import { identify } from "../host/process-identity.ts";
import { type ContainerRecord, claimContainer, supervisorDied } from "../sandbox/record.ts";
import { runFolder } from "../sandbox/run-folder.ts";
import { gc } from "./gc.ts";
import type { Log } from "./log.ts";

const printed: string[] = [];
vi.mock("./output.ts", () => ({ print: (text: string) => void printed.push(text), complain: () => {} }));

let root: string;
let warnings: string[];
const log: Log = { debug: () => {}, info: () => {}, warning: (message) => void warnings.push(message), error: () => {} };

beforeEach(() => {
  root = mkdtempSync(join(tmpdir(), "husk-gc-"));
  warnings = [];
  printed.length = 0;
});
afterEach(() => rmSync(root, { recursive: true }));

const own = identify(process.pid) ?? null;
const dead = { pid: 1, start: 0 }; // init began later than at tick 0 of a real machine, or is not ours in any case

function claim(id: string, change: Partial<ContainerRecord>): void {
  claimContainer(root, {
    version: 1,
    ociVersion: "1.2.1",
    id,
    status: "stopped",
    pid: 0,
    pidStart: 0,
    supervisor: dead,
    bundle: "/b",
    rootfs: "/b/rootfs",
    created: "2026-01-01T00:00:00Z",
    owner: "root",
    annotations: {},
    terminal: false,
    foreground: false,
    poststop: [],
    ...change,
  });
}

function run(dryRun = false, container?: string): Promise<number> {
  const globals = { root, log: undefined, logFormat: "text", debug: false, systemdCgroup: false } as const;
  return gc({ verb: "gc", globals, flags: { "dry-run": dryRun, container }, operands: [] }, log);
}

/** One of each kind. */
function populate(): void {
  const exit = { code: 0, at: "2026-01-02T00:00:00Z" };
  claim("running", { status: "running", supervisor: own });
  claim("ended", { exit });
  claim("ending-in-the-foreground", { foreground: true, supervisor: own, exit });
  claim("killed", { status: "running" });
  claim("known-to-be-killed", { exit: { signal: 9, at: exit.at, reason: supervisorDied } });
  claim("forgotten-in-the-foreground", { foreground: true, exit });
  noteInLedger(runFolder(root, "killed").ledger, { kind: "file", path: join(root, "socket") });
  writeFileSync(join(root, "socket"), "");
  mkdirSync(join(root, "~new-fresh"));
  mkdirSync(join(root, "~old-1-2-x"));
  utimesSync(join(root, "~old-1-2-x"), new Date(0), new Date(0));
}

/** Above every PID that Linux gives. */
const noProcess = 2 ** 22 + 1;

it("removes what nobody else will, and nothing else", async () => {
  populate();
  expect(await run()).toBe(0);
  expect(readdirSync(root)).toEqual(["ended", "ending-in-the-foreground", "running", "~new-fresh"]);
  expect(printed.join("")).toBe(
    [
      `removed the container forgotten-in-the-foreground: ${root}/forgotten-in-the-foreground\n`,
      `removed the file ${root}/socket\n`,
      `removed the container killed: ${root}/killed\n`,
      `removed the container known-to-be-killed: ${root}/known-to-be-killed\n`,
      `removed ${root}/~old-1-2-x\n`,
    ].join(""),
  );
  expect(warnings).toEqual([]);
});

it("only says so in a dry run", async () => {
  populate();
  const before = readdirSync(root);
  expect(await run(true)).toBe(0);
  expect(readdirSync(root)).toEqual(before);
  expect(printed.filter((line) => line.startsWith("would remove "))).toHaveLength(5);
});

it("tells of what it could not remove, and goes on", async () => {
  claim("a", { status: "running" });
  writeFileSync(runFolder(root, "a").ledger, "damaged\n");
  claim("b", { status: "running" });
  claim("c", {});
  writeFileSync(runFolder(root, "c").state, "");
  expect(await run()).toBe(1);
  expect(existsSync(join(root, "b"))).toBe(false);
  expect(warnings).toEqual([
    expect.stringContaining(`the state of container "c" in ${root}/c/state.json cannot be read`),
    `container "a" was not removed: the ledger ${root}/a/ledger.jsonl is damaged at line 1`,
  ]);
});

it("looks at one container alone where that is asked for", async () => {
  populate();
  // A supervisor that died over its claim has left no container, but has somebody who looks after it.
  for (const pid of [process.pid, noProcess]) mkdirSync(join(root, `~new-${pid}-x`));
  for (const id of ["ended", "absent"]) expect(await run(false, id)).toBe(0);
  expect(printed).toEqual([]);
  expect(readdirSync(root).filter((name) => name.startsWith("~new-"))).toEqual([`~new-${process.pid}-x`, "~new-fresh"]);
  expect(await run(false, "killed")).toBe(0);
  expect(printed.join("")).toBe(`removed the file ${root}/socket\nremoved the container killed: ${root}/killed\n`);
  expect(readdirSync(root)).toContain("known-to-be-killed");
});
