/** Whether a process sees the host as this one does. */
import { readlinkSync, statSync } from "node:fs";

const namespaces = ["mnt", "pid", "net", "ipc", "uts", "user", "cgroup"] as const;

/** Whether a process has this one's namespaces and root, as front demands it of whoever serves in the place of its child. False where it has ended. */
export function standsBeside(pid: number): boolean {
  try {
    const [theirs, ours] = [statSync(`/proc/${pid}/root`), statSync("/proc/self/root")];
    const isSame = (name: string): boolean => readlinkSync(`/proc/${pid}/ns/${name}`) === readlinkSync(`/proc/self/ns/${name}`);
    return theirs.dev === ours.dev && theirs.ino === ours.ino && namespaces.every(isSame);
  } catch {
    return false; // it has ended, or is another user's
  }
}
