/**
 * Which process a PID means. PIDs are reused, so whoever remembers one across time remembers its start time beside it; a PID whose start
 * time differs is somebody else's.
 */
import { readFileSync } from "node:fs";

/** A process, told apart from any other that had or will have its PID. */
export interface ProcessIdentity {
  readonly pid: number;
  /** Start time in clock ticks since the host booted: field 22 of /proc/PID/stat (proc_pid_stat(5)). */
  readonly start: number;
}

/** The identity of a living process; undefined where there is none (a zombie has ended: only its exit status is left). */
export function identify(pid: number): ProcessIdentity | undefined {
  if (!Number.isSafeInteger(pid) || pid <= 0) return undefined;
  let stat: string;
  try {
    stat = readFileSync(`/proc/${pid}/stat`, "utf8");
  } catch {
    return undefined; // ENOENT, or ESRCH where it ended between open and read
  }
  return parseStat(pid, stat);
}

/** The identity in the text of a /proc/PID/stat. The name in it may hold spaces and parentheses, so fields count from the last ")". */
export function parseStat(pid: number, stat: string): ProcessIdentity | undefined {
  const fields = stat.slice(stat.lastIndexOf(")") + 2).split(" ");
  const state = fields[0]; // field 3
  const start = Number(fields[19]); // field 22
  if (state === "Z" || state === "X" || !Number.isSafeInteger(start)) return undefined;
  return { pid, start };
}

/** Whether that very process still runs. */
export function isAlive(identity: ProcessIdentity): boolean {
  return identify(identity.pid)?.start === identity.start;
}

/**
 * Sends a signal to that very process; false where it has ended.
 *
 * Between the check and the signal the process could end and its PID be taken by another: pidfd_send_signal(2) alone excludes that, and
 * Node cannot call it. PIDs are handed out in turn, so the whole PID space would have to be used up within these microseconds.
 */
export function signalProcess(identity: ProcessIdentity, signal: NodeJS.Signals | number): boolean {
  if (!isAlive(identity)) return false;
  try {
    return process.kill(identity.pid, signal);
  } catch (error) {
    if (error instanceof Error && "code" in error && error.code === "ESRCH") return false;
    throw error;
  }
}
