/** The keeper of a zygote as a program: started by a sandbox that found none, in a session of its own, with its standard error a file beside the template. */
import { exitStatus, explain } from "../errors.ts";
import { keepZygote } from "../pool/zygote.ts";
import type { ZygoteOrder } from "../sandbox/start-zygote.ts";
import { complain } from "./output.ts";

/** `order`: a ZygoteOrder, in JSON: from husk itself. */
export async function keep(order: string): Promise<void> {
  const stop = new AbortController();
  for (const signal of ["SIGINT", "SIGTERM"]) process.on(signal, () => stop.abort());
  try {
    await keepZygote(JSON.parse(order) as ZygoteOrder, stop.signal, (message) => complain(`${message}\n`));
    process.exit(0);
  } catch (error) {
    complain(`${explain(error)}\n`);
    process.exit(exitStatus(error));
  }
}
