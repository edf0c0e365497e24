/**
 * From a bundle's specification to what the agent gets: host-only parts are taken out, and the sources of bind mounts become paths in the
 * guest. Judge the bundle first (`support.ts`): what is refused there is not translated here.
 */
import { HuskError } from "../errors.ts";
import { isSwapFile } from "./guest.ts";
import type { HookPrograms } from "./hook-programs.ts";
import { inheritedOptions } from "./inherited-options.ts";
import { stringifyJson } from "./json.ts";
import { isOverlayOption, type MountPlan, planMount } from "./mount-plan.ts";
import { bindSource, destinationOf } from "./mounts.ts";
import type { Source, Sources } from "./sources.ts";
import { guestHasDevice, isPrivileged } from "./support/devices.ts";
import type { GuestNamespace } from "./support/finding.ts";
import type { Device, Hooks, Linux, Mount, Namespace, Process, Resources, Spec } from "./types.ts";

/** A file or folder of the host that a bind mount needs in the guest, or a hook's program. */
export interface Share {
  /** Of the mount, in the bundle's list; hooks' programs are numbered behind the mounts. */
  readonly index: number;
  /** Absolute, without symbolic links. */
  readonly hostPath: string;
  readonly readonly: boolean;
  /** A single file; else a folder. */
  readonly isFile: boolean;
  /** The options of an overlay file system that the host mounts and shows in the place of `hostPath`. */
  readonly overlay?: readonly string[];
  /** Mounts that the host makes below it later show as well. */
  readonly follows?: true;
  /** Without the mounts below it. */
  readonly recursive?: false;
  /** Only the mount itself is read-only, and not those below it. */
  readonly writableBelow?: true;
}

export interface GuestSpecOptions {
  /** Absolute: the bundle's folder. */
  readonly bundle: string;
  /** From `inspectSources`. */
  readonly sources: Sources;
  /** Where the agent puts the root file system together (CreateContainer's rootfs.mount_point). */
  readonly rootPath: string;
  /** Where the guest finds a share. */
  readonly guestPath: (share: Share) => string;
  /** From `inspectHookPrograms`. */
  readonly hookPrograms?: HookPrograms;
  /** The bundle's linux.seccomp, compiled; null where it has none. */
  readonly seccomp: CompiledSeccomp | null;
  /** See `Circumstances.guestNamespace`. */
  readonly guestNamespace?: (namespace: Namespace) => GuestNamespace | undefined;
  /** Where the guest finds the shared memory for which containers bind this tmpfs of the host: theirs in common. Without it, each has its own. */
  readonly guestMemory?: (hostPath: string, options: readonly string[]) => string;
}

/** linux.seccomp as the agent gets it. */
export interface CompiledSeccomp {
  /** Flags of seccomp(2). */
  readonly flags: number;
  /** The filter's instructions as an x86-64 kernel has them in memory (struct sock_filter), in hexadecimal digits. */
  readonly program: string;
}

/** The specification in the guest's words. */
export type GuestDocument = Omit<Spec, "linux"> & {
  readonly linux?: Omit<Linux, "seccomp"> & { readonly seccomp?: CompiledSeccomp };
};

export interface GuestSpec {
  readonly spec: GuestDocument;
  readonly shares: readonly Share[];
}

export function guestSpec(spec: Spec, options: GuestSpecOptions): GuestSpec {
  const shares: Share[] = [];
  const sharesMemory =
    spec.linux?.namespaces?.some((namespace) => namespace.type === "ipc" && options.guestNamespace?.(namespace) === "sandbox") ?? false;
  const mounts = (spec.mounts ?? []).flatMap((mount, index): Mount[] => {
    const plan = planMount(mount, options.sources.get(index), bindSource(mount, options.bundle));
    switch (plan.action) {
      case "keep":
        return [mount];
      case "replace":
        return [sharesMemory ? sandboxMemory(plan.mount) : commonMemory(plan, options)];
      case "drop":
        return [];
      case "refuse":
        throw new HuskError("unsupported", `config.json: mounts[${index}]: ${plan.reason}`);
      case "share":
        break;
    }
    const { action: _action, note: _note, ...shared } = plan;
    const share = { index, ...shared };
    shares.push(share);
    const bindOptions = bindOptionsOf(mount, plan, inherited(mount, plan, options.sources.get(index), spec.linux));
    return [{ ...mount, type: "bind", source: options.guestPath(share), ...(bindOptions === undefined ? {} : { options: bindOptions }) }];
  });
  const programs = [...(options.hookPrograms ?? [])].flatMap(([index, program]): Share[] =>
    program.kind === "static"
      ? [{ index: (spec.mounts ?? []).length + index, hostPath: program.realPath, readonly: true, isFile: true }]
      : [],
  );
  const { vm: _vm, solaris: _solaris, windows: _windows, zos: _zos, freebsd: _freebsd, hooks, linux, ...rest } = spec;
  const inGuest: GuestDocument = {
    ...rest,
    process: firstProcess(spec.process),
    root: { ...spec.root, path: options.rootPath },
    mounts: mounts.map((mount) => ({ ...mount, destination: absolute(mount.destination) })),
    ...(hooks === undefined ? {} : { hooks: guestHooks(hooks, programs, options) }),
    ...(linux === undefined ? {} : { linux: guestLinux(linux, options) }),
  };
  return { spec: inGuest, shares: [...shares, ...programs] };
}

/** A destination of old tools, without its slash, begins at the root all the same (config.md, "Mounts"). */
function absolute(destination: string): string {
  return destination.startsWith("/") ? destination : `/${destination}`;
}

type SharePlan = Extract<MountPlan, { action: "share" }>;

/** The options with which the guest binds what the host shows. `inherited`: of the host's mount. */
function bindOptionsOf({ options }: Mount, plan: SharePlan, inherited: readonly string[]): readonly string[] | undefined {
  if (plan.overlay !== undefined) return ["bind", ...(options ?? []).filter((option) => !isOverlayOption(option))];
  // The guest has one mount for all that the host shows, with the mounts below: which of them can be written to, the host decides.
  const own = plan.writableBelow === true ? options?.filter((option) => option !== "ro") : options;
  return inherited.length === 0 ? own : [...(own ?? []), ...inherited];
}

/** What the guest's mount has of the host's. */
function inherited(mount: Mount, plan: SharePlan, source: Source | undefined, linux: Linux | undefined): readonly string[] {
  if (source === undefined || !("mountOptions" in source) || source.mountOptions === undefined) return [];
  const hasUsers = linux?.namespaces?.some(({ type }) => type === "user") ?? false;
  const mountsBelow = source.kind === "folder" && source.mountsBelow === true && plan.recursive !== false;
  return inheritedOptions(mount, source.mountOptions, hasUsers, mountsBelow || plan.follows === true);
}

/** Shared memory is for all containers of one IPC namespace: those that have the sandbox's have the guest's own tmpfs. */
function sandboxMemory(mount: Mount): Mount {
  const isSharedMemory = destinationOf(mount) === "/dev/shm" && mount.type === "tmpfs";
  return isSharedMemory
    ? { destination: mount.destination, type: "bind", source: "/dev/shm", options: ["bind", "nosuid", "nodev", "noexec"] }
    : mount;
}

/** What containers share that bind the same tmpfs of the host to /dev/shm. */
function commonMemory({ mount, memoryOf }: Extract<MountPlan, { action: "replace" }>, { guestMemory }: GuestSpecOptions): Mount {
  if (memoryOf === undefined || guestMemory === undefined) return mount;
  const [own, shared] = [mount.options?.filter((option) => !option.includes("=")), mount.options?.filter((option) => option.includes("="))];
  return { ...mount, type: "bind", source: guestMemory(memoryOf, shared ?? []), options: ["bind", ...(own ?? [])] };
}

/** A process as the agent gets it: the labels that guard the host are left out, as is the user's name, which on Linux means nothing. */
export function guestProcess(process: Process): Process {
  const { apparmorProfile: _profile, selinuxLabel: _label, commandLine: _commandLine, user, ...rest } = process;
  const { username: _username, ...ids } = user;
  return { user: ids, ...rest, ...(process.env && { env: lastOfEach(process.env) }) };
}

/** Each variable once, with its last value, as runc has it: which of two a program takes is its own affair, and shells and libc differ. */
function lastOfEach(entries: readonly string[]): readonly string[] {
  const names = entries.map((entry) => entry.split("=", 1)[0]);
  return entries.filter((_, index) => names.lastIndexOf(names[index]) === index);
}

/** execCPUAffinity is for the processes of `exec` alone, which take it from here where they have none of their own (runtime-spec, config.md). */
function firstProcess(process: Process): Process {
  const { execCPUAffinity: _affinity, ...rest } = guestProcess(process);
  return rest;
}

/**
 * Resources as the agent gets them: what is about the host's processors and devices is left out, as is what cgroup v2 and a guest without
 * swap do not have, and the zeros that programs in Go write where nothing is asked.
 */
export function guestResources(resources: Resources): Resources {
  const { blockIO: _blockIO, network: _network, rdma: _rdma, memory, cpu, pids, unified, ...rest } = resources;
  const {
    kernel: _kernel,
    kernelTCP: _kernelTCP,
    swap: _swap,
    swappiness: _swappiness,
    disableOOMKiller: _oom,
    ...guestMemory
  } = memory ?? {};
  const { cpus: _cpus, mems: _mems, realtimePeriod: _period, realtimeRuntime: _runtime, ...guestCpu } = cpu ?? {};
  return {
    ...rest,
    ...(memory && { memory: withoutZeros(guestMemory) }),
    // A cgroup that is idle no more is one with idle 0, which nobody writes who asks for nothing.
    ...(cpu && { cpu: { ...withoutZeros(guestCpu), ...(cpu.idle === undefined ? {} : { idle: cpu.idle }) } }),
    ...(pids?.limit && { pids }),
    ...(unified && { unified: Object.fromEntries(Object.entries(unified).filter(([file]) => !isSwapFile(file))) }),
  };
}

function withoutZeros<T extends object>(numbers: T): Partial<T> {
  const set = Object.entries(numbers).filter(([, value]) => value !== 0);
  return Object.fromEntries(set) as Partial<T>;
}

/** Any part of the specification as JSON, for the agent (process_json, resources_json); 64-bit numbers stay exact. */
export function encodeForAgent(part: Process | Resources): Uint8Array {
  return Buffer.from(stringifyJson(part));
}

function guestHooks({ createContainer, startContainer }: Hooks, programs: readonly Share[], { guestPath }: GuestSpecOptions): Hooks {
  const inGuest = createContainer?.map((hook, index) => {
    const program = programs[index];
    return program === undefined ? hook : { ...hook, path: guestPath(program), args: hook.args ?? [hook.path] };
  });
  return { ...(inGuest && { createContainer: inGuest }), ...(startContainer && { startContainer }) };
}

function guestLinux(linux: Linux, options: GuestSpecOptions): NonNullable<GuestDocument["linux"]> {
  const {
    seccomp: _profile,
    cgroupsPath: _path,
    mountLabel: _label,
    netDevices: _net,
    intelRdt: _rdt,
    memoryPolicy: _policy,
    ...rest
  } = linux;
  const { resources, devices, namespaces } = linux;
  return {
    ...rest,
    ...(options.seccomp === null ? {} : { seccomp: options.seccomp }),
    ...(resources === undefined ? {} : { resources: guestResources(resources) }),
    ...(namespaces === undefined ? {} : { namespaces: guestNamespaces(namespaces, options) }),
    ...(devices === undefined ? {} : { devices: guestDevices(devices, isPrivileged(resources)) }),
  };
}

function guestDevices(devices: readonly Device[], privileged: boolean): Device[] {
  const wanted = privileged ? devices.filter(guestHasDevice) : devices;
  // Podman writes the bits of the file's type, too.
  return wanted.map((device) => (device.fileMode === undefined ? device : { ...device, fileMode: device.fileMode & 0o7777 }));
}

/** What joins a namespace of another container's in the guest, in the agent's words. */
const ofContainer = "container:";

/**
 * All that the container is to have of its own, or of another container's in the sandbox. Not the network's: the guest's own is the sandbox's, which the host
 * mirrors the namespace's links into. Nor those of the sandbox, which the agent gives to containers that have none of their own. One of cgroups in any case:
 * without one a container shares the host's with runc, and finds its own limits where cgroup v1 mounts them; the guest's other cgroups are the agent's and other
 * containers'.
 */
function guestNamespaces(namespaces: readonly Namespace[], { guestNamespace }: GuestSpecOptions): Namespace[] {
  const own = namespaces
    .filter(({ type }) => type !== "network")
    .flatMap((namespace): Namespace[] => {
      const { type, path = "" } = namespace;
      if (path === "") return [{ type }];
      const found = guestNamespace?.(namespace);
      if (found === "sandbox") return [];
      if (found !== undefined) return [{ type, path: `${ofContainer}${found.container}` }];
      throw new HuskError("unsupported", `config.json: linux.namespaces: the guest cannot join ${path}`);
    });
  return own.some(({ type }) => type === "cgroup") ? own : [...own, { type: "cgroup" }];
}
