/**
 * How the server goes on in little memory, once it has started. As flags of Node's command line these would cost each start some 50 ms of processor time: V8
 * takes no code that was kept under other flags, and Node's own modules are kept as code under none.
 */
import type { EventEmitter } from "node:events";
import { setFlagsFromString } from "node:v8";
import { leaveCodeCache } from "../code-cache.ts";

/**
 * The second is what V8 goes by for buffers outside of its heap: it lets twice as much of them gather before it looks for those that nobody needs, 64 MiB by
 * itself, and bulk output is nothing but such buffers. The third does without the middle one of its compilers, which keeps 6 MB and makes nothing here faster
 * that can be measured.
 */
const flags = ["--optimize-for-size", "--scavenger-max-new-space-capacity-mb=1", "--no-maglev"];

export function beFrugal(): void {
  (process as EventEmitter).emit(leaveCodeCache);
  for (const flag of flags) setFlagsFromString(flag);
}
