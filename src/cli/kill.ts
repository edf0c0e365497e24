/** `husk kill`. */
import { readRecord } from "../sandbox/record.ts";
import { allowed, callSupervisor } from "./call-supervisor.ts";
import type { Invocation } from "./command-line.ts";
import { parseSignal } from "./signals.ts";

export async function kill({ globals, flags, operands: [id = "", word = "TERM"] }: Invocation<"kill">): Promise<void> {
  const signal = parseSignal(word);
  // As with runc: all processes of a container that has none have got it.
  if (flags.all && readRecord(globals.root, id).status === "stopped") return;
  // Signal 0 only asks whether there is somebody to receive one.
  if (signal === 0) allowed(globals.root, id, "kill");
  else await callSupervisor(globals.root, id, "kill", "kill", { signal, all: flags.all });
}
