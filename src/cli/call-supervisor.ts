/** A verb that the container's supervisor carries out. */
import { HuskError } from "../errors.ts";
import { demand, type Operation } from "../oci/state.ts";
import type { ControlMethod, Params } from "../sandbox/control.ts";
import { ControlClient } from "../sandbox/control-client.ts";
import { type ContainerRecord, readRecord } from "../sandbox/record.ts";

/** Hooks and a slow guest have bounds of their own below this one, in milliseconds. */
const longestCallMs = 10 * 60_000;

/**
 * Calls the supervisor of a container. Throws `not-found`; `wrong-state` in the operation's own words where the container's state does not
 * allow it; and what the supervisor throws.
 */
export async function callSupervisor(
  root: string,
  id: string,
  operation: Operation,
  method: ControlMethod,
  params: Params = {},
): Promise<Params> {
  const record = readRecord(root, id);
  // A start waits for the creation that is under way, where the supervisor hears of it already.
  if (!(operation === "start" && record.status === "creating")) demand(operation, id, record.status);
  try {
    using client = await ControlClient.connect(root, record.id);
    return await client.call(method, params, { deadlineMs: longestCallMs });
  } catch (error) {
    throw error instanceof HuskError && (error.code === "wrong-state" || error.code === "internal")
      ? inItsWords(root, id, operation, error)
      : error;
  }
}

/** Where the container ended meanwhile, the record says so by now, and the operation's own words are what engines look for. */
function inItsWords(root: string, id: string, operation: Operation, error: HuskError): HuskError {
  try {
    allowed(root, id, operation);
    return error;
  } catch (refusal) {
    if (!(refusal instanceof HuskError)) throw refusal;
    return refusal.message === error.message ? error : new HuskError(refusal.code, refusal.message, { cause: error });
  }
}

/** The record of a container whose state allows the operation. */
export function allowed(root: string, id: string, operation: Operation): ContainerRecord {
  const record = readRecord(root, id);
  demand(operation, id, record.status);
  return record;
}
