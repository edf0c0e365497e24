/** The host's processes as /proc shows them (proc(5)). */
import { readdirSync, readFileSync, readlinkSync } from "node:fs";

export interface HostProcess {
  readonly pid: number;
  readonly parent: number;
  /** Start time in clock ticks since the boot: with the PID, it names a process for good. */
  readonly start: number;
  /** One letter; Z is a zombie. */
  readonly state: string;
  /** Its short name, cut to 15 characters by the kernel. */
  readonly name: string;
  readonly command: string;
  /** Such as net:[4026531840]; empty where it has gone. */
  readonly networkNamespace: string;
}

/** Every process that this one can see. */
export function listProcesses(): HostProcess[] {
  return readdirSync("/proc")
    .filter((entry) => /^\d+$/.test(entry))
    .flatMap((entry) => readProcess(Number(entry)) ?? []);
}

/** One process; undefined where there is none of that PID (any more). */
export function readProcess(pid: number): HostProcess | undefined {
  try {
    const stat = readFileSync(`/proc/${pid}/stat`, "utf8");
    const nameEnd = stat.lastIndexOf(")");
    const fields = stat.slice(nameEnd + 2).split(" ");
    const command = readFileSync(`/proc/${pid}/cmdline`, "utf8").replaceAll("\0", " ").trim();
    return {
      pid,
      parent: Number(fields[1]),
      start: Number(fields[19]),
      state: fields[0] ?? "",
      name: stat.slice(stat.indexOf("(") + 1, nameEnd),
      command,
      networkNamespace: namespaceOf(pid),
    };
  } catch {
    return undefined; // it ended while it was looked at
  }
}

/** The processes below `pid`, at any depth. */
export function descendants(pid: number): HostProcess[] {
  const all = listProcesses();
  const below = (parent: number): HostProcess[] =>
    all.filter((process) => process.parent === parent).flatMap((process) => [process, ...below(process.pid)]);
  return below(pid);
}

function namespaceOf(pid: number): string {
  try {
    return readlinkSync(`/proc/${pid}/ns/net`);
  } catch {
    return ""; // a zombie has none
  }
}
