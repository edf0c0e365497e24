/** `husk checkpoint`: the supervisor does it; unless the container is to go on, the call ends once it has stopped. */
import { watch } from "node:fs";
import { resolve } from "node:path";
import { HuskError } from "../errors.ts";
import { withDeadline } from "../host/deadline.ts";
import { readRecord } from "../sandbox/record.ts";
import { runFolder } from "../sandbox/run-folder.ts";
import { callSupervisor } from "./call-supervisor.ts";
import type { Invocation } from "./command-line.ts";
import { meaninglessCriuFlags, refuseCriuFlags } from "./criu-flags.ts";
import type { Log } from "./log.ts";

/** How long a container whose virtual machine has ended may take until all that it had is given back. */
const stoppedWithinMs = 10_000;

export async function checkpoint({ globals: { root }, flags, operands: [id = ""] }: Invocation<"checkpoint">, log: Log): Promise<void> {
  refuseCriuFlags(flags, ["parent-path", "pre-dump", "lazy-pages", "page-server", "status-fd", "auto-dedup"]);
  for (const flag of meaninglessCriuFlags(flags, ["link-remap", "tcp-skip-in-flight"]))
    log.info(`${flag} has no meaning for a virtual machine`);
  const leaveRunning = flags["leave-running"];
  const params = { folder: resolve(flags["image-path"] ?? "checkpoint"), leaveRunning };
  const { notes } = await callSupervisor(root, id, "checkpoint", "checkpoint", params);
  if (Array.isArray(notes)) for (const note of notes) log.warning(String(note));
  if (!leaveRunning) await withDeadline(untilStopped(root, id), stoppedWithinMs, `the end of container "${id}"`);
}

/** Resolves once the container has stopped, or is gone, as one is that a foreground owns. */
async function untilStopped(root: string, id: string): Promise<void> {
  const { path } = runFolder(root, id);
  await new Promise<void>((done, fail) => {
    const look = (): void => {
      try {
        if (readRecord(root, id).status !== "stopped") return;
      } catch (error) {
        if (!(error instanceof HuskError && error.code === "not-found")) return fail(error);
      }
      watcher?.close();
      done();
    };
    let watcher: ReturnType<typeof watch> | undefined;
    try {
      watcher = watch(path, look);
      watcher.on("error", look);
    } catch {
      // The folder is gone, which the look below finds.
    }
    look();
  });
}
