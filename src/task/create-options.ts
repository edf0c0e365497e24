/**
 * The runtime options of a Create. Clients send runc's to every shim, those of containerd 1.x in an older form, and CRI what its configuration says; husk's own configuration is a file of the host. What
 * concerns the shim's start (`shim_cgroup`, `ConfigPath`) its front has obeyed (guest-agent/helper/src/shim/options.rs). What husk does not know it refuses, or
 * names: somebody expects it to act.
 */
import { HuskError } from "../errors.ts";
import { CreateOptions } from "../gen/containerd/linux/runc.ts";
import { Options as RuncOptions } from "../gen/containerd/runc/v1/options.ts";
import { Options as RuntimeOptions } from "../gen/containerd/runtimeoptions/v1/options.ts";
import type { Any } from "../gen/google/protobuf/any.ts";

export interface JudgedOptions {
  /** That systemd makes the cgroup; absent: as cgroupsPath has it. */
  readonly systemdCgroup?: true;
  /** What has no effect, and why: worth a line for who looks for it. */
  readonly notes: readonly string[];
  /** What was meant to have an effect, perhaps, and has none. */
  readonly warnings: readonly string[];
}

/** runc's options: "obeyed", or why one needs no effect. */
const effects: Readonly<Record<string, string>> = {
  noPivotRoot: "a container's root is changed in its virtual machine, where nothing forbids it",
  noNewKeyring: "keys are the virtual machine's",
  shimCgroup: "obeyed",
  ioUid: "every user of a container can open its own streams",
  ioGid: "every user of a container can open its own streams",
  binaryName: "husk runs no runc",
  root: "husk has its own run folder",
  criuPath: "husk takes checkpoints without CRIU",
  systemdCgroup: "obeyed",
  criuImagePath: "the checkpoint is named by the call itself",
  criuWorkPath: "husk takes checkpoints without CRIU",
  openTcp: "a checkpoint says what it cannot carry",
  externalUnixSockets: "a checkpoint says what it cannot carry",
  terminal: "the call itself says it",
  fileLocks: "a checkpoint carries them",
  emptyNamespaces: "a checkpoint is a whole virtual machine's",
  cgroupsMode: "a checkpoint is a whole virtual machine's",
  taskApiAddress: "this is the address",
  taskApiVersion: "this is the address",
};

/** Throws `invalid-argument`. */
export async function judgeOptions(options: Any | undefined): Promise<JudgedOptions> {
  if (options === undefined || options.typeUrl === "") return { notes: [], warnings: [] };
  const name = options.typeUrl.slice(options.typeUrl.lastIndexOf("/") + 1);
  if (name === CreateOptions.$type) return judged(Object.entries(decoded(CreateOptions, options.value)));
  if (name === RuncOptions.$type) return judged(Object.entries(decoded(RuncOptions, options.value)));
  if (name !== RuntimeOptions.$type) {
    throw new HuskError("invalid-argument", `the runtime options are of an unknown type, ${JSON.stringify(options.typeUrl.slice(0, 200))}`);
  }
  const { configBody } = decoded(RuntimeOptions, options.value);
  return judged(Object.entries(await readBody(configBody)).map(([key, value]) => [key.charAt(0).toLowerCase() + key.slice(1), value]));
}

function judged(fields: readonly (readonly [name: string, value: unknown])[]): JudgedOptions {
  const set = fields.filter(([, value]) => value !== "" && value !== false && value !== 0 && !(Array.isArray(value) && value.length === 0));
  const isKnown = (name: string): boolean => Object.hasOwn(effects, name);
  return {
    ...(set.some(([name, value]) => name === "systemdCgroup" && value === true) ? { systemdCgroup: true as const } : {}),
    notes: set.flatMap(([name]) => {
      const effect = isKnown(name) ? effects[name] : "obeyed";
      return effect === "obeyed" ? [] : [`the runtime option ${name} is without effect: ${effect}`];
    }),
    warnings: set.filter(([name]) => !isKnown(name)).map(([name]) => `the runtime option ${name} is unknown, and without effect`),
  };
}

function decoded<T>(type: { readonly $type: string; decode(bytes: Uint8Array): T }, value: Uint8Array): T {
  try {
    return type.decode(value);
  } catch (cause) {
    throw new HuskError("invalid-argument", `the runtime options are no ${type.$type}`, { cause });
  }
}

/** What CRI passes on of its configuration, in TOML. The parser is loaded only here. */
async function readBody(body: Uint8Array): Promise<Record<string, unknown>> {
  if (body.length === 0) return {};
  const { parse } = await import("smol-toml");
  try {
    return parse(Buffer.from(body).toString());
  } catch (cause) {
    throw new HuskError("invalid-argument", "the runtime options hold no TOML", { cause });
  }
}
