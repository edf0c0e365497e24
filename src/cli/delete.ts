/** `husk delete`. */

import { helperPath } from "../host/installation.ts";
import { throughHelper } from "../sandbox/give-back.ts";
import { deleteContainer, type RemovalOptions } from "../sandbox/removal.ts";
import type { Invocation } from "./command-line.ts";
import type { Log } from "./log.ts";

export async function deleteVerb({ globals, flags, operands: [id = ""] }: Invocation<"delete">, log: Log): Promise<void> {
  await deleteContainer(globals.root, id, flags.force, removalOptions(log));
}

/** How the command line gives back what is not its own. */
export function removalOptions(log: Log): RemovalOptions {
  return { warn: log.warning, ...throughHelper(helperPath()) };
}
