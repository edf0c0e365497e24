/** The removal of a cgroup, which the kernel refuses (EBUSY) as long as a process is in it. */
import { existsSync, type FSWatcher, readdirSync, readFileSync, rmdirSync, watch, writeFileSync } from "node:fs";
import { join } from "node:path";
import { HuskError } from "../errors.ts";
import { hasCode } from "./system-error.ts";

/** How long processes that are about to end may take, in milliseconds; then they are killed, and get the same time once more. */
const emptyWithinMs = 2_000;

/** How often a cgroup v1 folder is looked at, in milliseconds: it tells nobody when it becomes empty. */
const version1IntervalMs = 10;

/**
 * Removes a cgroup folder. One that is gone is no error, nor is one that holds cgroups of others, which stays. Processes in it are waited
 * for, then killed: the folder was made for the sandbox, and the sandbox is at its end. Throws `host` where they do not end even so.
 */
export async function removeCgroup(path: string, waitMs: number = emptyWithinMs): Promise<void> {
  if (tryRemove(path)) return;
  await emptied(path, waitMs);
  if (tryRemove(path)) return;
  killAll(path);
  await emptied(path, waitMs);
  if (!tryRemove(path)) {
    throw new HuskError("host", `processes in it do not end: ${processes(path).slice(0, 8).join(", ")}`);
  }
}

/** False where processes keep it. */
function tryRemove(path: string): boolean {
  try {
    rmdirSync(path);
    return true;
  } catch (cause) {
    if (hasCode(cause, "ENOENT", "ENOTDIR")) return true;
    if (!hasCode(cause, "EBUSY", "ENOTEMPTY")) throw cause;
    return hasChildren(path);
  }
}

function hasChildren(path: string): boolean {
  try {
    return readdirSync(path, { withFileTypes: true }).some((entry) => entry.isDirectory());
  } catch {
    return false; // removed meanwhile, by another who gives the same back
  }
}

/** Resolves when no process is left in the cgroup, or the time is over; which of the two is seen by trying again. */
async function emptied(path: string, waitMs: number): Promise<void> {
  const events = join(path, "cgroup.events");
  if (existsSync(events)) return await unpopulated(events, waitMs);
  for (const end = Date.now() + waitMs; Date.now() < end && processes(path).length > 0; ) {
    await new Promise((resolve) => setTimeout(resolve, version1IntervalMs));
  }
}

/** Cgroup v2: the kernel notifies whoever watches cgroup.events of every change. */
function unpopulated(events: string, waitMs: number): Promise<void> {
  return new Promise((resolve) => {
    const watcher = watchFile(events);
    const done = (): void => {
      clearTimeout(timer);
      watcher?.close();
      resolve();
    };
    const timer = setTimeout(done, waitMs);
    const look = (): void => {
      if (!isPopulated(events)) done();
    };
    watcher?.on("change", look).on("error", done);
    look(); // for the change that came before the watch
  });
}

function watchFile(path: string): FSWatcher | undefined {
  try {
    return watch(path);
  } catch (cause) {
    if (hasCode(cause, "ENOENT")) return undefined; // removed by another who gives the same back
    throw cause;
  }
}

function isPopulated(events: string): boolean {
  try {
    return /^populated 1$/m.test(readFileSync(events, "utf8"));
  } catch {
    return false; // ENOENT, or ENODEV where it was removed after the open
  }
}

function processes(path: string): number[] {
  try {
    return readFileSync(join(path, "cgroup.procs"), "utf8")
      .split("\n")
      .map(Number)
      .filter((pid) => pid > 0); // 0: outside our PID namespace
  } catch {
    return [];
  }
}

function killAll(path: string): void {
  const kill = join(path, "cgroup.kill"); // v2, since Linux 5.14; v1 has none
  try {
    if (existsSync(kill)) writeFileSync(kill, "1");
    else for (const pid of processes(path)) process.kill(pid, "SIGKILL");
  } catch (cause) {
    if (!hasCode(cause, "ENOENT", "ENODEV", "ESRCH")) throw cause;
  }
}
