/** `husk start`, `husk pause` and `husk resume`: the supervisor does it. */
import { explain, HuskError } from "../errors.ts";
import { deleteContainer } from "../sandbox/removal.ts";
import { type Connect, callSupervisor } from "./call-supervisor.ts";
import type { Invocation } from "./command-line.ts";
import { removalOptions } from "./delete.ts";
import type { Log } from "./log.ts";

type SimpleCall = Invocation<"start" | "pause" | "resume">;

export async function simpleCall({ verb, globals, operands: [id = ""] }: SimpleCall, log: Log, connect?: Connect): Promise<void> {
  try {
    await callSupervisor(globals.root, id, verb, verb, {}, connect);
  } catch (error) {
    // A poststart hook that fails is the end of the container (runtime-spec, "Lifecycle", step 9).
    const isOver = verb === "start" && error instanceof HuskError && error.code === "hook";
    if (isOver)
      await deleteContainer(globals.root, id, true, removalOptions(log)).catch((failure: unknown) => log.warning(explain(failure)));
    throw error;
  }
}
