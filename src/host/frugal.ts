/** How a program of ours goes on in little memory. */
import type { EventEmitter } from "node:events";
import { setFlagsFromString } from "node:v8";
import { runInNewContext } from "node:vm";
import { leaveCodeCache } from "../code-cache.ts";

/**
 * What V8 goes by for buffers outside of its heap: it lets twice as much of them gather before it looks for those that nobody needs, 64 MiB by itself. Bulk output
 * is nothing but such buffers, and has V8's workers busy with them all the time.
 */
const fewBuffers = "--scavenger-max-new-space-capacity-mb=1";

/** The second does without the middle one of V8's compilers, which keeps 6 MB and makes nothing here faster that can be measured. */
const smallHeap = ["--optimize-for-size", "--no-maglev"];

/** How long after the first start of a process whoever serves it begins to be frugal, in milliseconds: nothing is left to be loaded then. */
export const settleMs = 1_000;

let keepsFewBuffers = false;

/**
 * Has V8 keep little, once the program has started. As flags of Node's command line these would cost each start some 50 ms of processor time: V8 takes no code that
 * was kept under other flags, and Node's own modules are kept as code under none.
 */
export function beFrugal(): void {
  setFlags([...smallHeap, fewBuffers]);
  collectGarbage();
}

/** Has V8 give back what the start has left: a program that does nothing from here on would never come to it. */
function collectGarbage(): void {
  setFlagsFromString("--expose-gc");
  const collect = runInNewContext("gc") as (options: { readonly type: "major"; readonly flavor: "last-resort" }) => void;
  setFlagsFromString("--no-expose-gc");
  collect({ type: "major", flavor: "last-resort" });
}

/** Has V8 let few buffers gather: for a program through which more than a little data goes. */
export function keepFewBuffers(): void {
  if (!keepsFewBuffers) setFlags([fewBuffers]);
}

function setFlags(flags: readonly string[]): void {
  (process as EventEmitter).emit(leaveCodeCache);
  for (const flag of flags) setFlagsFromString(flag);
  keepsFewBuffers = true;
}
