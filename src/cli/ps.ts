/** `husk ps`: the guest's processes, as the agent sees them. What it says of them is a guest's word: checked, and bounded on the terminal. */
import { HuskError } from "../errors.ts";
import { printable } from "../host/printable.ts";
import { integer, list, nonEmptyString, object, type Reader, read, ShapeError, string } from "../narrow.ts";
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
  if (format === "json") {
    print(`${JSON.stringify([allowed(globals.root, id, "ps").pid])}\n`);
    return;
  }
  if (format !== "table" && format !== "details") {
    throw new HuskError("invalid-argument", `--format: expected table, json or details, got ${JSON.stringify(format)}`);
  }
  const answer = await callSupervisor(globals.root, id, "ps", "ps");
  const found = readProcesses(answer["processes"]);
  print(format === "details" ? `${JSON.stringify(found, undefined, 2)}\n` : processTable(found, Date.now()));
}

/** The table of `ps -ef`. `nowMs`: when it is now, in milliseconds since 1970. */
export function processTable(found: readonly GuestProcessInfo[], nowMs: number): string {
  const rows = found.map((process) => [
    String(process.uid),
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
