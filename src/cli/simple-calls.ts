/** `husk start`, `husk pause` and `husk resume`: the supervisor does it. */
import { callSupervisor } from "./call-supervisor.ts";
import type { Invocation } from "./command-line.ts";

export async function simpleCall({ verb, globals, operands: [id = ""] }: Invocation<"start" | "pause" | "resume">): Promise<void> {
  await callSupervisor(globals.root, id, verb, verb);
}
