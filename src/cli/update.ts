/** `husk update`: new limits for a container that lives, from flags or from a file of the runtime spec's resources. */
import { readFileSync } from "node:fs";
import { HuskError } from "../errors.ts";
import { stringifyJson } from "../oci/json.ts";
import { judgeUpdate, refuseUnsupported } from "../oci/support.ts";
import type { Resources } from "../oci/types.ts";
import { type Parsed, parseResources } from "../oci/validate.ts";
import { allowed, callSupervisor } from "./call-supervisor.ts";
import type { Invocation } from "./command-line.ts";
import type { Log } from "./log.ts";
import { resourcesOfFlags } from "./update-flags.ts";

/** Bound of a file of resources. */
const maxBytes = 4 * 1024 * 1024;

export async function update({ globals, flags, operands: [id = ""] }: Invocation<"update">, log: Log): Promise<void> {
  allowed(globals.root, id, "update");
  const { name, value, unknown } = flags.resources === undefined ? fromFlags(flags) : fromFile(flags.resources);
  for (const note of refuseUnsupported(judgeUpdate(value), name)) log.info(note);
  for (const path of unknown) log.info(`${name}: ${path} is no property of the runtime spec and was ignored`);
  await callSupervisor(globals.root, id, "update", "update", { resources: stringifyJson(value) });
}

interface Asked extends Parsed<Resources> {
  /** Of the document, for messages. */
  readonly name: string;
}

function fromFlags(flags: Invocation<"update">["flags"]): Asked {
  return { name: "update", value: resourcesOfFlags(flags), unknown: [] };
}

/** As with runc, a file makes the other flags void. */
function fromFile(path: string): Asked {
  const name = path === "-" ? "standard input" : path;
  let text: string;
  try {
    text = readFileSync(path === "-" ? 0 : path, "utf8");
  } catch (cause) {
    throw new HuskError("invalid-argument", `cannot read ${name}`, { cause });
  }
  if (text.length > maxBytes) throw new HuskError("invalid-argument", `${name} is larger than ${maxBytes / 1024 / 1024} MiB`);
  return { name, ...parseResources(text, name) };
}
