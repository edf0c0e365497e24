/** `husk kill`. */
import { HuskError } from "../errors.ts";
import { readRecord } from "../sandbox/record.ts";
import { allowed, type Connect, callSupervisor } from "./call-supervisor.ts";
import type { Invocation } from "./command-line.ts";
import { parseSignal } from "./signals.ts";

export async function kill({ globals, flags, operands: [id = "", word = "TERM"] }: Invocation<"kill">, connect?: Connect): Promise<void> {
  const signal = parseSignal(word);
  try {
    await send(globals.root, id, signal, flags.all, connect);
  } catch (cause) {
    throw cause instanceof HuskError ? new HuskError(cause.code, `error sending signal ${word}`, { cause }) : cause;
  }
}

async function send(root: string, id: string, signal: number, all: boolean, connect?: Connect): Promise<void> {
  // As with runc: all processes of a container that has none have got it.
  if (all && readRecord(root, id).status === "stopped") return;
  // Signal 0 only asks whether there is somebody to receive one.
  if (signal === 0) allowed(root, id, "kill");
  else await callSupervisor(root, id, "kill", "kill", { signal, all }, connect);
}
