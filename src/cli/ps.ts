/** `husk ps`: the guest's processes, as the agent sees them. What it says of them is a guest's word: checked, and bounded on the terminal. */
import { readFileSync } from "node:fs";
import { HuskError } from "../errors.ts";
import { printable } from "../host/printable.ts";
import { integer, list, nonEmptyString, object, type Reader, read, ShapeError, string } from "../narrow.ts";
import { readRecord } from "../sandbox/record.ts";
import { allowed, callSupervisor } from "./call-supervisor.ts";
import type { Invocation } from "./command-line.ts";
import { print, table } from "./output.ts";

/** ProcessInfo of proto/agent/v1/agent.proto, in JSON. */
export interface GuestProcessInfo {
  readonly pid: number;
  readonly parentPid: number;
  readonly uid: number;
  readonly state: string;
  readonly startUnixMs: number;
  readonly cpuMs: number;
  readonly residentBytes: number;
  readonly terminal: string;
  readonly command: string;
  readonly processId: string;
  readonly containerPid: number;
}

const processes: Reader<readonly GuestProcessInfo[]> = list(
  object<GuestProcessInfo>({
    pid: integer(0),
    parentPid: integer(0),
    uid: integer(0),
    state: string,
    startUnixMs: integer(0),
    cpuMs: integer(0),
    residentBytes: integer(0),
    terminal: string,
    command: nonEmptyString,
    processId: string,
    containerPid: integer(0),
  }),
);

export async function ps({ globals, flags, operands: [id = ""] }: Invocation<"ps">): Promise<void> {
  const format = flags.format ?? "table";
  if (format !== "table" && format !== "details" && format !== "json") {
    throw new HuskError("invalid-argument", `--format: expected table, json or details, got ${JSON.stringify(format)}`);
  }
  // As with runc, a container that has ended has no processes, and that is no failure.
  const isStopped = readRecord(globals.root, id).status === "stopped";
  if (format === "json") {
    print(`${JSON.stringify(isStopped ? [] : [allowed(globals.root, id, "ps").pid])}\n`);
    return;
  }
  const found = isStopped ? [] : readProcesses((await callSupervisor(globals.root, id, "ps", "ps"))["processes"]);
  print(format === "details" ? `${JSON.stringify(found, undefined, 2)}\n` : processTable(found, Date.now(), hostUsers()));
}

/** The names of the host's users, by their numbers: what ps(1) here calls the users of a container. */
function hostUsers(): ReadonlyMap<number, string> {
  const entries = readFileSync("/etc/passwd", "utf8").split("\n").toReversed(); // of two names, the first
  return new Map(entries.map((line) => line.split(":")).map(([name = "", , uid]) => [Number(uid), name]));
}

/** The table of `ps -ef`. `nowMs`: when it is now, in milliseconds since 1970. `users`: names by number. */
export function processTable(found: readonly GuestProcessInfo[], nowMs: number, users: ReadonlyMap<number, string>): string {
  const rows = found.map((process) => [
    users.get(process.uid) ?? String(process.uid),
    String(process.pid),
    String(process.parentPid),
    String(Math.min(99, Math.floor((100 * process.cpuMs) / Math.max(1, nowMs - process.startUnixMs)))),
    startTime(process.startUnixMs, nowMs),
    printable(process.terminal),
    cpuTime(process.cpuMs),
    printable(process.command).replaceAll("\n", " "),
  ]);
  return table([["UID", "PID", "PPID", "C", "STIME", "TTY", "TIME", "CMD"], ...rows], 0, 2);
}

/** The hour within the last day, the day before that: as ps(1) has it. */
function startTime(startMs: number, nowMs: number): string {
  const start = new Date(startMs);
  if (nowMs - startMs < 24 * 3_600_000) return start.toTimeString().slice(0, 5);
  return start.toDateString().slice(4, 7) + String(start.getDate()).padStart(2, "0");
}

function cpuTime(milliseconds: number): string {
  const seconds = Math.floor(milliseconds / 1000);
  return [Math.floor(seconds / 3600), Math.floor(seconds / 60) % 60, seconds % 60].map((part) => String(part).padStart(2, "0")).join(":");
}

function readProcesses(value: unknown): readonly GuestProcessInfo[] {
  try {
    return read(processes, value);
  } catch (cause) {
    if (!(cause instanceof ShapeError)) throw cause;
    throw new HuskError("guest", "the guest's list of processes cannot be read", { cause });
  }
}
