/** The flags of `husk update`, runc's, and what they say in the runtime spec's words. */
import { HuskError } from "../errors.ts";
import type { Cpu, Int64, Memory, Resources } from "../oci/types.ts";
import { type Parsed, parseResources } from "../oci/validate.ts";
import type { FlagValues } from "./flags.ts";

const bytes = (help: string) => ({ kind: "text", value: "BYTES", help }) as const;
const number = (help: string) => ({ kind: "text", value: "N", help }) as const;

export const updateFlags = {
  resources: {
    kind: "text",
    short: "r",
    value: "FILE",
    help: "the spec's linux.resources as JSON, - for standard input; voids the other flags",
  },
  "cpu-share": number("the weight of its processor time on the host and in the guest, 2 to 262144"),
  "cpu-quota": number("microseconds that it may run in each period; -1: no limit"),
  "cpu-period": number("the period, in microseconds"),
  "cpu-burst": number("microseconds saved in idle periods that it may run beyond its quota"),
  "cpu-idle": number("1: it runs when nothing else in the guest wants to; 0: as usual"),
  "cpu-rt-period": number("refused: cgroup v2 knows no real-time groups"),
  "cpu-rt-runtime": number("refused: cgroup v2 knows no real-time groups"),
  "cpuset-cpus": { kind: "text", value: "LIST", help: 'the host\'s processors that the sandbox runs on, such as "0-3,7"' },
  "cpuset-mems": { kind: "text", value: "LIST", help: "the host's memory nodes that it takes memory of" },
  memory: bytes("how much memory it may use, such as 512m; -1: all that the guest has"),
  "memory-reservation": bytes("how much of it the guest's kernel takes from others first"),
  "memory-swap": bytes("accepted: the guest has no swap"),
  "kernel-memory": bytes("accepted: cgroup v2 does not have it"),
  "kernel-memory-tcp": bytes("accepted: cgroup v2 does not have it"),
  "pids-limit": number("how many processes and threads it may have; -1: no limit"),
  "blkio-weight": number("the weight of its block I/O on the host, 10 to 1000"),
  "l3-cache-schema": { kind: "text", value: "TEXT", help: "refused: resctrl groups cannot hold processes of a guest" },
  "mem-bw-schema": { kind: "text", value: "TEXT", help: "refused: resctrl groups cannot hold processes of a guest" },
} as const;

type Flags = FlagValues<typeof updateFlags>;

/** The resources that the flags ask for; those not given are absent. Throws `invalid-argument`, and `unsupported` for Intel's RDT. */
export function resourcesOfFlags(flags: Flags): Resources {
  for (const name of ["l3-cache-schema", "mem-bw-schema"] as const) {
    if (flags[name] === undefined) continue;
    throw new HuskError("unsupported", `--${name}: the host's resctrl groups cannot hold processes of a guest`);
  }
  const cpu = given<Cpu>({
    shares: wholeNumber(flags, "cpu-share"),
    quota: wholeNumber(flags, "cpu-quota"),
    period: wholeNumber(flags, "cpu-period"),
    burst: wholeNumber(flags, "cpu-burst"),
    idle: wholeNumber(flags, "cpu-idle"),
    realtimePeriod: wholeNumber(flags, "cpu-rt-period"),
    realtimeRuntime: wholeNumber(flags, "cpu-rt-runtime"),
    cpus: flags["cpuset-cpus"],
    mems: flags["cpuset-mems"],
  });
  const memory = given<Memory>({
    limit: size(flags, "memory"),
    reservation: size(flags, "memory-reservation"),
    swap: size(flags, "memory-swap"),
    kernel: size(flags, "kernel-memory"),
    kernelTCP: size(flags, "kernel-memory-tcp"),
  });
  const limit = wholeNumber(flags, "pids-limit");
  const weight = wholeNumber(flags, "blkio-weight");
  const resources = {
    ...(cpu && { cpu }),
    ...(memory && { memory }),
    ...(limit !== undefined && { pids: { limit } }),
    ...(weight !== undefined && { blockIO: { weight } }),
  };
  return checked(resources).value;
}

/** The same checks as for a file. */
function checked(resources: object): Parsed<Resources> {
  return parseResources(JSON.stringify(resources), "update");
}

function given<T extends object>(fields: { readonly [K in keyof T]: T[K] | undefined }): Partial<T> | undefined {
  const set = Object.entries(fields).filter(([, value]) => value !== undefined);
  return set.length === 0 ? undefined : (Object.fromEntries(set) as Partial<T>);
}

function wholeNumber(flags: Flags, name: keyof Flags): number | undefined {
  const text = flags[name];
  if (text === undefined) return undefined;
  const number = Number(text);
  if (/^-?\d+$/.test(text) && Number.isSafeInteger(number)) return number;
  throw new HuskError("invalid-argument", `--${name}: expected a whole number, got ${JSON.stringify(text.slice(0, 64))}`);
}

const units = ["", "k", "m", "g", "t", "p"];

/** Bytes, with or without a unit: "512m", "1.5GiB", as Docker and runc take them; -1 is no limit. */
function size(flags: Flags, name: keyof Flags): Int64 | undefined {
  const text = flags[name];
  if (text === undefined) return undefined;
  if (text === "-1") return -1;
  const [, digits = "", unit = ""] = /^(\d+(?:\.\d+)?) ?([kmgtp]?)i?b?$/i.exec(text) ?? [];
  const found = Math.floor(Number(digits) * 1024 ** units.indexOf(unit.toLowerCase()));
  if (digits !== "" && Number.isSafeInteger(found)) return found;
  throw new HuskError("invalid-argument", `--${name}: expected a size such as 512m, or -1, got ${JSON.stringify(text.slice(0, 64))}`);
}
