/** Waits for processes that are no children of ours: nothing tells of their end, so it is looked for. */
import { setTimeout as delay } from "node:timers/promises";
import { isAlive, type ProcessIdentity } from "./process-identity.ts";

/** Between two looks, in milliseconds. */
const lookIntervalMs = 20;

/** Resolves once all have ended, or after `withinMs` milliseconds, to one that has not; undefined: there is none. */
export async function untilEnded(processes: readonly ProcessIdentity[], withinMs: number): Promise<ProcessIdentity | undefined> {
  for (const end = Date.now() + withinMs; ; ) {
    const left = processes.find(isAlive);
    if (left === undefined || Date.now() > end) return left;
    await delay(lookIntervalMs);
  }
}
