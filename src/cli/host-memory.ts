/** `husk stats --host`: what sandboxes take of the host's memory, process by process, from /proc and whatever each supervisor says of its stand-ins. */
import { basename } from "node:path";
import { explain, HuskError } from "../errors.ts";
import { type ListedProcess, listProcesses, type ProcessMemory, readProcessMemory, withDescendants } from "../host/process-memory.ts";
import { integer, list, object, read } from "../narrow.ts";
import { ControlClient } from "../sandbox/control-client.ts";
import { type ContainerRecord, listRecords, readRecord } from "../sandbox/record.ts";
import type { Invocation } from "./command-line.ts";
import type { Log } from "./log.ts";
import { print, table } from "./output.ts";

/** A supervisor that does not name its stand-ins within this leaves them to the record, which knows the first, in milliseconds. */
const standInsWithinMs = 2_000;

/** A process of a sandbox. `role`: what it is to the sandbox. */
interface SandboxProcess extends ProcessMemory {
  readonly role: string;
  readonly pid: number;
}

export interface SandboxMemory {
  /** The container's; NAMESPACE/ID where containerd's shim has it. */
  readonly id: string;
  readonly pss: number;
  readonly processes: readonly SandboxProcess[];
}

export async function stats({ globals, flags, operands: [id] }: Invocation<"stats">, log: Log): Promise<void> {
  const format = flags.format ?? "table";
  if (format !== "table" && format !== "json") {
    throw new HuskError("invalid-argument", `--format: expected table or json, got ${JSON.stringify(format)}`);
  }
  if (!flags.host) {
    throw new HuskError("invalid-argument", "stats: expected --host, which tells what sandboxes take of the host", {
      hint: "what a container uses in its guest is told by `husk events --stats ID`",
    });
  }
  const processes = listProcesses();
  const { records, errors } = listRecords(globals.root);
  for (const error of errors) log.warning(explain(error));
  const own = records.map((record) => ofRecord(globals.root, record, processes, log));
  const sandboxes = [...(await Promise.all(own)), ...ofShims(processes)].filter((sandbox) => sandbox.processes.length > 0);
  const wanted = id === undefined ? sandboxes : sandboxes.filter((sandbox) => isNamed(sandbox, id));
  if (id !== undefined && wanted.length === 0) {
    const { status } = readRecord(globals.root, id); // or there is no such container
    throw new HuskError("wrong-state", `container "${id}" is ${status}, and has no sandbox`);
  }
  print(format === "json" ? `${JSON.stringify(wanted)}\n` : memoryTable(wanted));
}

/** Whether `id` is a sandbox's: a shim's may be named without its namespace. */
function isNamed(sandbox: SandboxMemory, id: string): boolean {
  return sandbox.id === id || sandbox.id.endsWith(`/${id}`);
}

/** A container of the command line: its supervisor with all below it, and its stand-ins, which stand below whoever called husk. */
async function ofRecord(root: string, record: ContainerRecord, processes: readonly ListedProcess[], log: Log): Promise<SandboxMemory> {
  const { id, supervisor } = record;
  if (supervisor === null) return { id, pss: 0, processes: [] };
  const below = withDescendants(supervisor.pid, processes);
  const known = new Set(below.map(({ pid }) => pid));
  const standIns = (await standInsOf(root, record, log)).filter((pid) => !known.has(pid)).map((pid) => ({ pid, role: "stand-in" }));
  return measured(id, [...below.map((process) => ({ pid: process.pid, role: roleOf(process.words) })), ...standIns]);
}

async function standInsOf(root: string, record: ContainerRecord, log: Log): Promise<readonly number[]> {
  const first = record.pid === 0 ? [] : [record.pid];
  if (record.status === "stopped") return first;
  try {
    using client = await ControlClient.connect(root, record.id);
    const answer = await client.call("standIns", {}, { deadlineMs: standInsWithinMs });
    return read(object({ pids: list(integer(1)) }), answer).pids;
  } catch (error) {
    log.warning(`the supervisor of "${record.id}" does not name its stand-ins, so those of execs are left out: ${explain(error)}`);
    return first;
  }
}

/** The sandboxes of containerd's shims, each a server with all below it. */
function ofShims(processes: readonly ListedProcess[]): SandboxMemory[] {
  return processes.flatMap((process) => {
    const name = shimName(process.words);
    if (name === undefined) return [];
    return [
      measured(
        name,
        withDescendants(process.pid, processes).map(({ pid, words }) => ({ pid, role: roleOf(words) })),
      ),
    ];
  });
}

/** What the shim's server serves, from its command line; undefined for every other process. */
export function shimName(words: readonly string[]): string | undefined {
  const script = words.findIndex((word) => basename(word) === "shim.js");
  if (script === -1 || words[script + 1] !== "serve") return undefined;
  const value = (flag: string): string | undefined => words[words.findIndex((word) => word.replace(/^--?/, "") === flag) + 1];
  const [namespace, id] = [value("namespace"), value("id")];
  return namespace === undefined || id === undefined ? undefined : `${namespace}/${id}`;
}

/** What a process is to its sandbox, from its command line. */
export function roleOf(words: readonly string[]): string {
  const [program = "", face = ""] = words.map((word) => basename(word));
  if (program.startsWith("qemu-system")) return "qemu";
  if (program === "husk-helper") return ["front", "stand-in"].includes(face) ? "stand-in" : `helper ${face}`.trim();
  if (words.some((word) => basename(word) === "supervisor.js")) return "supervisor";
  if (words.some((word) => basename(word) === "shim.js")) return "shim";
  return program === "" ? "?" : program;
}

function measured(id: string, processes: readonly { readonly pid: number; readonly role: string }[]): SandboxMemory {
  const found = processes.flatMap(({ pid, role }) => {
    const memory = readProcessMemory(pid);
    return memory === undefined ? [] : [{ role, pid, ...memory }];
  });
  return { id, pss: found.reduce((sum, { pss }) => sum + pss, 0), processes: found };
}

/** One line a process, and one for each sandbox's sum. */
export function memoryTable(sandboxes: readonly SandboxMemory[]): string {
  const columns = ({ pss, anonymous, file, shared }: ProcessMemory): string[] => [pss, anonymous, file, shared].map(mebibytes);
  const rows = sandboxes.flatMap(({ id, processes }) => [
    ...processes.map((process) => [id, process.role, String(process.pid), ...columns(process)]),
    [id, "all", "", ...columns(sum(processes))],
  ]);
  return table([["ID", "PROCESS", "PID", "PSS", "ANON", "FILE", "SHARED"], ...rows], 0, 2);
}

function sum(processes: readonly ProcessMemory[]): ProcessMemory {
  const all = (part: keyof ProcessMemory): number => processes.reduce((so, process) => so + process[part], 0);
  return { pss: all("pss"), anonymous: all("anonymous"), file: all("file"), shared: all("shared") };
}

function mebibytes(bytes: number): string {
  return `${(bytes / 1024 ** 2).toFixed(1)} MiB`;
}
