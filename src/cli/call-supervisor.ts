/** A verb that the container's supervisor carries out. */
import { HuskError } from "../errors.ts";
import { demand, type Operation } from "../oci/state.ts";
import type { ControlMethod, Params } from "../sandbox/control.ts";
import { ControlClient } from "../sandbox/control-client.ts";
import { type ContainerRecord, readRecord } from "../sandbox/record.ts";

/** Who carries calls out: a supervisor behind its socket, or this very process. */
export interface Callee extends Disposable {
  readonly call: (method: ControlMethod, params: Params, options: { readonly deadlineMs: number }) => Promise<Params>;
}

/** Gives who carries out the calls of a container. */
export type Connect = (root: string, id: string) => Promise<Callee>;

/** By the control socket. Throws as `ControlClient.connect`. */
const distant: Connect = (root, id) => ControlClient.connect(root, id);

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
  connect = distant,
): Promise<Params> {
  const record = readRecord(root, id);
  // A start waits for the creation that is under way, where the supervisor hears of it already.
  if (!(operation === "start" && record.status === "creating")) demand(operation, id, record.status);
  try {
    using client = await connect(root, record.id);
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
