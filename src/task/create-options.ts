/**
 * The runtime options of a Create. Clients send runc's to every shim, and CRI those of its configuration; husk's own configuration is a file of the host, so
 * neither has any effect, which is said. What husk does not know it refuses: somebody expects it to act.
 */
import { HuskError } from "../errors.ts";
import { Options as RuncOptions } from "../gen/containerd/runc/v1/options.ts";
import { Options as RuntimeOptions } from "../gen/containerd/runtimeoptions/v1/options.ts";
import type { Any } from "../gen/google/protobuf/any.ts";

const known: Readonly<Record<string, { decode(bytes: Uint8Array): object }>> = {
  "containerd.runc.v1.Options": RuncOptions,
  "runtimeoptions.v1.Options": RuntimeOptions,
};

/** Gives what is worth a line in the log. Throws `invalid-argument`. */
export function judgeOptions(options: Any | undefined): readonly string[] {
  if (options === undefined || options.typeUrl === "") return [];
  const name = options.typeUrl.slice(options.typeUrl.lastIndexOf("/") + 1);
  const type = Object.hasOwn(known, name) ? known[name] : undefined;
  if (type === undefined) {
    throw new HuskError("invalid-argument", `the runtime options are of an unknown type, ${JSON.stringify(options.typeUrl.slice(0, 200))}`);
  }
  const set = Object.entries(decoded(name, type, options.value))
    .filter(([, value]) => value !== "" && value !== false && value !== 0 && !(value instanceof Uint8Array && value.length === 0))
    .map(([field]) => field);
  return set.length === 0 ? [] : [`the runtime options ${set.join(", ")} (${name}) are without effect`];
}

function decoded(name: string, type: { decode(bytes: Uint8Array): object }, value: Uint8Array): object {
  try {
    return type.decode(value);
  } catch (cause) {
    throw new HuskError("invalid-argument", `the runtime options are no ${name}`, { cause });
  }
}
