/** What processes take of the host's memory, as the kernel accounts for it (proc_pid_smaps_rollup(5)), and which processes stand below one. */
import { readdirSync, readFileSync, readlinkSync } from "node:fs";
import { basename } from "node:path";
import { HuskError } from "../errors.ts";
import { hasCode } from "./system-error.ts";

/** In bytes. A page that several processes map counts in each by its share: the sum over all processes is what they take together. */
export interface ProcessMemory {
  readonly pss: number;
  /** Parts of `pss`: memory of the process's own; pages of files, such as its program; shared memory, such as a guest's. */
  readonly anonymous: number;
  readonly file: number;
  readonly shared: number;
}

export interface ListedProcess {
  readonly pid: number;
  readonly parent: number;
  /** Its command line; a stand-in's, which shows its container's words as its own, is told as husk's. */
  readonly words: readonly string[];
  /** Its PID namespace, such as "pid:[4026531836]"; "" where that is not to be seen. */
  readonly pidNamespace: string;
}

const helperName = "husk-helper";

/** Where /proc is: a test has one of its own. */
const procFolder = "/proc";

/** What a process takes; undefined where it has ended. Throws `host` where it is another user's. */
export function readProcessMemory(pid: number, proc = procFolder): ProcessMemory | undefined {
  try {
    return parseRollup(readFileSync(`${proc}/${pid}/smaps_rollup`, "utf8"));
  } catch (cause) {
    if (hasCode(cause, "ENOENT", "ESRCH")) return undefined;
    throw new HuskError("host", `cannot read what process ${pid} takes of memory`, { cause, hint: "run husk as root" });
  }
}

/** The text of a smaps_rollup; undefined where it has no figures: the process has ended, and is not reaped yet. */
export function parseRollup(text: string): ProcessMemory | undefined {
  const bytes = (name: string): number | undefined => {
    const found = new RegExp(`^${name}:\\s+(\\d+) kB$`, "m").exec(text)?.[1];
    return found === undefined ? undefined : Number(found) * 1024;
  };
  const pss = bytes("Pss");
  if (pss === undefined) return undefined;
  return { pss, anonymous: bytes("Pss_Anon") ?? 0, file: bytes("Pss_File") ?? 0, shared: bytes("Pss_Shmem") ?? 0 };
}

/** Every process that can be seen. Those that end meanwhile are left out. */
export function listProcesses(proc = procFolder): ListedProcess[] {
  return readdirSync(proc)
    .filter((name) => /^\d+$/.test(name))
    .flatMap((name) => readProcess(Number(name), proc) ?? []);
}

/**
 * The process `root` and all that stand below it among `processes`, parents first; and whoever else is in a PID namespace of theirs: a QEMU that was copied
 * stands below the one that it is a copy of.
 */
export function withDescendants(root: number, processes: readonly ListedProcess[]): ListedProcess[] {
  const children = Map.groupBy(processes, ({ parent }) => parent);
  const found = processes.filter(({ pid }) => pid === root);
  for (const { pid } of found) found.push(...(children.get(pid) ?? []));
  const outside = new Set(["", ...found.slice(0, 1).map(({ pidNamespace }) => pidNamespace)]);
  const inside = new Set(found.map(({ pidNamespace }) => pidNamespace).filter((namespace) => !outside.has(namespace)));
  return [...found, ...processes.filter((process) => inside.has(process.pidNamespace) && !found.includes(process))];
}

function readProcess(pid: number, proc: string): ListedProcess | undefined {
  try {
    const parent = /^PPid:\s+(\d+)$/m.exec(readFileSync(`${proc}/${pid}/status`, "utf8"))?.[1];
    const program = linkOf(pid, "exe", proc);
    const words = wordsOf(readFileSync(`${proc}/${pid}/cmdline`, "utf8"), program);
    const posesAsAnother = basename(words[0] ?? "") !== helperName && basename(program) === helperName;
    if (parent === undefined) return undefined;
    return {
      pid,
      parent: Number(parent),
      words: posesAsAnother ? [helperName, "stand-in"] : words,
      pidNamespace: linkOf(pid, "ns/pid", proc),
    };
  } catch (error) {
    if (hasCode(error, "ENOENT", "ESRCH")) return undefined;
    throw error;
  }
}

/** A command line's words. A process that has given itself another one, as a shim does that stood by, has it in one piece, with zero bytes to its end. */
function wordsOf(commandLine: string, program: string): string[] {
  const words = commandLine.split("\0").slice(0, -1);
  const title = commandLine.replace(/\0+$/, "");
  return program !== "" && title.startsWith(`${program} `) && !title.includes("\0") ? title.split(" ") : words;
}

/** Where a link of a process's folder leads: its program's path, say; "" for the kernel's own, and for those of other users. */
function linkOf(pid: number, name: string, proc: string): string {
  try {
    return readlinkSync(`${proc}/${pid}/${name}`);
  } catch (error) {
    if (hasCode(error, "ENOENT", "ESRCH", "EACCES", "EPERM")) return "";
    throw error;
  }
}
