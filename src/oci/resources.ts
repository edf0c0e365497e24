/**
 * How large a bundle's virtual machine is, and what the host's cgroup of the sandbox gets, from linux.resources and plain values of the
 * configuration. The container's own limits act in the guest; the host's are those plus what QEMU and the guest need for themselves.
 */
import { HuskError } from "../errors.ts";
import { ownAnnotations } from "./annotations.ts";
import type { BlockIo, Int64, Resources, Spec } from "./types.ts";

const MIB = 1024 ** 2;

/** Guest memory comes in huge pages of the host where those are to be had, and in blocks of virtio-mem. */
const MEMORY_STEP_BYTES = 2 * MIB;

/** Below this, a Linux guest with husk's kernel does not reach its first process. */
const MIN_GUEST_BYTES = 64 * MIB;

/** The most that the kernel takes for shares. */
const MAX_SHARES = 262_144;

/** What the kernel takes for the period where none is given. */
const DEFAULT_PERIOD_US = 100_000;

export interface SizeDefaults {
  /** Where the bundle sets no quota. */
  readonly vcpus: number;
  /** For the container, where the bundle sets no limit. */
  readonly memoryBytes: number;
  /** What the guest's kernel and agent need beside the container. */
  readonly guestOverheadBytes: number;
  /** What QEMU and virtiofsd need beside the guest's memory. */
  readonly hostOverheadBytes: number;
  /** The processors that the host may use. */
  readonly hostCpus: number;
  /** What the host could give at most. */
  readonly hostMemoryBytes: number;
}

export interface HostLimits {
  /** memory.max of the sandbox's cgroup: the guest's memory and the host's overhead. */
  readonly memoryBytes: number;
  /** As in linux.resources.cpu.shares (2 to 262144). */
  readonly cpuShares?: number;
  /** cpuset.cpus and cpuset.mems. */
  readonly cpus?: string;
  readonly mems?: string;
  /** QEMU and virtiofsd, who do the container's reading and writing, are in that cgroup. */
  readonly blockIo?: BlockIo;
}

export interface VmSize {
  readonly vcpus: number;
  /** The guest's memory, a multiple of 2 MiB. */
  readonly memoryBytes: number;
  readonly host: HostLimits;
}

/**
 * vCPUs: as many as the quota asks for at least in part, or as the processors that an exec is to run on ask for by their numbers, and no more than the host has,
 * or than the bundle's cpuset has. Memory: the limit (or the default) and the guest's own, never too little to boot.
 */
export function vmSize(spec: Pick<Spec, "annotations" | "linux" | "process">, defaults: SizeDefaults): VmSize {
  const resources = spec.linux?.resources;
  const wanted = annotatedSize(spec.annotations ?? {});
  const host = hostLimits(resources);
  const available = Math.min(defaults.hostCpus, host.cpus === undefined ? Number.POSITIVE_INFINITY : countCpus(host.cpus));
  const quotaUs = positive(resources?.cpu?.quota);
  const quota = quotaUs === undefined ? undefined : Math.ceil(quotaUs / (positive(resources?.cpu?.period) ?? DEFAULT_PERIOD_US));
  const vcpus = Math.max(1, Math.min(Math.max(wanted.vcpus ?? quota ?? defaults.vcpus, processorsOfExecs(spec)), available));
  const limit = positive(resources?.memory?.limit);
  const forContainer = Math.min(wanted.memoryBytes ?? limit ?? defaults.memoryBytes, defaults.hostMemoryBytes);
  const memoryBytes = roundUp(Math.max(forContainer + defaults.guestOverheadBytes, MIN_GUEST_BYTES));
  return { vcpus, memoryBytes, host: { ...host, memoryBytes: memoryBytes + defaults.hostOverheadBytes } };
}

/**
 * What the host's cgroup takes of linux.resources, the memory aside: the guest's memory does not change with a limit in it. Nor the quota, which acts in the
 * guest: on the host it would also hold up QEMU's and virtiofsd's own threads, that serve the container.
 */
export function hostLimits(resources: Resources | undefined): Omit<HostLimits, "memoryBytes"> {
  const cpu = resources?.cpu;
  const cpuShares = positive(cpu?.shares);
  const blockIo = resources?.blockIO;
  return {
    ...(cpuShares === undefined ? {} : { cpuShares }),
    ...(cpu?.cpus ? { cpus: cpu.cpus } : {}),
    ...(cpu?.mems ? { mems: cpu.mems } : {}),
    ...(blockIo === undefined ? {} : { blockIo }),
  };
}

/** What containers that share a virtual machine ask of it together, and of the host's cgroup. */
export interface Demand {
  /** What their quotas add up to, in whole processors that the host has; 0 where none has a quota. */
  readonly vcpus: number;
  /** What their limits add up to, with what the guest needs for itself; 0 where none has a limit. */
  readonly memoryBytes: number;
  /** Whether every one of them has a quota, and a limit: then none of them lives on what is beyond the demand. */
  readonly limited: { readonly vcpus: boolean; readonly memory: boolean };
  readonly host: Omit<HostLimits, "memoryBytes">;
}

/**
 * The sum of containers' limits. Shares add up; lists of processors and of memory nodes are joined, where each container has one; block I/O is a lone
 * container's, since QEMU reads and writes for all of them alike.
 */
export function demandOf(containers: readonly Resources[], defaults: SizeDefaults): Demand {
  const [first] = containers;
  const each = containers.map(hostLimits);
  const shares = each.flatMap(({ cpuShares }) => cpuShares ?? []);
  const host = {
    ...(shares.length === 0 ? {} : { cpuShares: Math.min(sum(shares), MAX_SHARES) }),
    ...joined(
      "cpus",
      each.map(({ cpus }) => cpus),
    ),
    ...joined(
      "mems",
      each.map(({ mems }) => mems),
    ),
    ...(containers.length === 1 && first?.blockIO !== undefined ? { blockIo: first.blockIO } : {}),
  };
  const quotas = containers.flatMap(({ cpu }) => {
    const quotaUs = positive(cpu?.quota);
    return quotaUs === undefined ? [] : quotaUs / (positive(cpu?.period) ?? DEFAULT_PERIOD_US);
  });
  const limits = containers
    .flatMap(({ memory }) => positive(memory?.limit) ?? [])
    .map((bytes) => Math.min(bytes, defaults.hostMemoryBytes));
  const available = Math.min(defaults.hostCpus, host.cpus === undefined ? Number.POSITIVE_INFINITY : countCpus(host.cpus));
  return {
    vcpus: Math.min(Math.ceil(sum(quotas)), available),
    memoryBytes: limits.length === 0 ? 0 : roundUp(Math.min(sum(limits), defaults.hostMemoryBytes) + defaults.guestOverheadBytes),
    limited: { vcpus: quotas.length === containers.length, memory: limits.length === containers.length },
    host,
  };
}

/** The limits that hold after an update, which names those that it changes: the zero values of programs in Go name nothing. */
export function updated(resources: Resources, changes: Resources): Resources {
  return {
    ...resources,
    ...changes,
    memory: { ...resources.memory, ...named(changes.memory) },
    cpu: { ...resources.cpu, ...named(changes.cpu) },
    ...(resources.blockIO || changes.blockIO ? { blockIO: { ...resources.blockIO, ...named(changes.blockIO) } } : {}),
  };
}

function named<T extends object>(fields: T | undefined): Partial<T> {
  return Object.fromEntries(Object.entries(fields ?? {}).filter(([, value]) => value !== 0 && value !== 0n && value !== "")) as Partial<T>;
}

/** How many processors a list such as "0-3,7" names. */
export function countCpus(list: string): number {
  const named = new Set<number>();
  for (const range of list.split(",")) {
    const [first = Number.NaN, last = first] = range.split("-").map(Number);
    // No host has more; the bound keeps a range such as 0-4294967295 from filling the memory.
    for (let cpu = first; cpu <= Math.min(last, first + 65_536); cpu++) named.add(cpu);
  }
  return named.size;
}

/** How many processors there must be for those that process.execCPUAffinity names to be among them. */
function processorsOfExecs({ process }: Pick<Spec, "process">): number {
  const { initial = "", final = "" } = process?.execCPUAffinity ?? {};
  const numbers = `${initial},${final}`.match(/\d+/g) ?? [];
  return 1 + Math.max(-1, ...numbers.map(Number));
}

function annotatedSize(annotations: Readonly<Record<string, string>>): { vcpus?: number; memoryBytes?: number } {
  const vcpus = annotations[ownAnnotations.vcpus];
  const memory = annotations[ownAnnotations.memory];
  if (vcpus !== undefined && !/^[1-9]\d{0,3}$/.test(vcpus)) throw badAnnotation(ownAnnotations.vcpus, "a number of vCPUs", vcpus);
  return {
    ...(vcpus === undefined ? {} : { vcpus: Number(vcpus) }),
    ...(memory === undefined ? {} : { memoryBytes: parseMemory(memory) }),
  };
}

function parseMemory(text: string): number {
  const [, digits, unit] = /^(\d{1,9})(MiB|GiB)$/.exec(text) ?? [];
  if (digits === undefined) throw badAnnotation(ownAnnotations.memory, 'a size such as "512MiB"', text);
  return Number(digits) * (unit === "GiB" ? 1024 * MIB : MIB);
}

function badAnnotation(name: string, expected: string, got: string): HuskError {
  return new HuskError(
    "invalid-argument",
    `config.json: annotations["${name}"]: expected ${expected}, got ${JSON.stringify(got.slice(0, 64))}`,
  );
}

/** Lists of processors or memory nodes as one, where there is no container without. */
function joined<K extends string>(key: K, all: readonly (string | undefined)[]): { readonly [P in K]?: string } {
  const given = all.filter((list) => list !== undefined);
  return given.length === 0 || given.length < all.length ? {} : ({ [key]: [...new Set(given)].join(",") } as { readonly [P in K]: string });
}

function sum(numbers: readonly number[]): number {
  return numbers.reduce((total, each) => total + each, 0);
}

/** A limit of the specification as a number; 0 and less stand for none. */
function positive(value: Int64 | undefined): number | undefined {
  return value === undefined || value <= 0 ? undefined : Number(value);
}

function roundUp(bytes: number): number {
  return Math.ceil(bytes / MEMORY_STEP_BYTES) * MEMORY_STEP_BYTES;
}
