/** What a call ends with that failed. */
import { execFailed, exitStatus } from "../errors.ts";

/**
 * `run` and `restore` end as their container does, so what husk itself fails with is set apart from that, as with `docker run`; `exec`, as with runc, has one status
 * for it, whatever the reason; and every other verb, as with runc, ends with 1. undefined: it is not even known which verb was meant.
 */
export function failureStatus(error: unknown, verb: string | undefined): number {
  if (verb === "run" || verb === "restore") return exitStatus(error);
  return verb === "exec" ? execFailed : 1;
}
