/**
 * The OCI runtime specification 1.2 (and what 1.3 adds to it for Linux), as far as Linux and virtual machines are concerned:
 * https://github.com/opencontainers/runtime-spec. Names are the specification's; what a field means is told there.
 *
 * These are the types after validation: unknown properties are left out, null counts as absent.
 */

/** A 64-bit number of the specification: a bigint where a double could not hold it exactly, such as RLIM_INFINITY. */
export type Int64 = number | bigint;

export interface Spec {
  readonly ociVersion: string;
  readonly process: Process;
  readonly root: Root;
  readonly hostname?: string;
  readonly domainname?: string;
  readonly mounts?: readonly Mount[];
  readonly hooks?: Hooks;
  readonly annotations?: Readonly<Record<string, string>>;
  readonly linux?: Linux;
  readonly vm?: Vm;
  /** Other systems' sections: read so that they can be refused by name. */
  readonly solaris?: unknown;
  readonly windows?: unknown;
  readonly zos?: unknown;
  readonly freebsd?: unknown;
}

export interface Root {
  /** Absolute, or relative to the bundle. */
  readonly path: string;
  readonly readonly?: boolean;
}

export interface Process {
  readonly terminal?: boolean;
  readonly consoleSize?: ConsoleSize;
  readonly user: User;
  readonly args: readonly string[];
  readonly env?: readonly string[];
  readonly cwd: string;
  readonly capabilities?: Capabilities;
  readonly rlimits?: readonly Rlimit[];
  readonly noNewPrivileges?: boolean;
  readonly apparmorProfile?: string;
  readonly oomScoreAdj?: number;
  readonly scheduler?: Scheduler;
  readonly selinuxLabel?: string;
  readonly ioPriority?: IoPriority;
  readonly execCPUAffinity?: CpuAffinity;
  /** Windows' own; read so that it can be refused by name. */
  readonly commandLine?: string;
}

export interface ConsoleSize {
  readonly height: number;
  readonly width: number;
}

export interface User {
  readonly uid: number;
  readonly gid: number;
  readonly umask?: number;
  readonly additionalGids?: readonly number[];
  /** Windows' own. */
  readonly username?: string;
}

export interface Capabilities {
  readonly bounding?: readonly string[];
  readonly effective?: readonly string[];
  readonly inheritable?: readonly string[];
  readonly permitted?: readonly string[];
  readonly ambient?: readonly string[];
}

export interface Rlimit {
  readonly type: string;
  readonly soft: Int64;
  readonly hard: Int64;
}

export interface Scheduler {
  readonly policy: string;
  readonly nice?: number;
  readonly priority?: number;
  readonly flags?: readonly string[];
  readonly runtime?: Int64;
  readonly deadline?: Int64;
  readonly period?: Int64;
}

export interface IoPriority {
  readonly class: string;
  readonly priority?: number;
}

export interface CpuAffinity {
  readonly initial?: string;
  readonly final?: string;
}

export interface Mount {
  readonly destination: string;
  readonly type?: string;
  readonly source?: string;
  readonly options?: readonly string[];
  readonly uidMappings?: readonly IdMapping[];
  readonly gidMappings?: readonly IdMapping[];
}

export interface IdMapping {
  readonly containerID: number;
  readonly hostID: number;
  readonly size: number;
}

export interface Hooks {
  readonly prestart?: readonly Hook[];
  readonly createRuntime?: readonly Hook[];
  readonly createContainer?: readonly Hook[];
  readonly startContainer?: readonly Hook[];
  readonly poststart?: readonly Hook[];
  readonly poststop?: readonly Hook[];
}

export interface Hook {
  readonly path: string;
  readonly args?: readonly string[];
  readonly env?: readonly string[];
  /** Seconds. */
  readonly timeout?: number;
}

export interface Vm {
  readonly hypervisor?: { readonly path: string; readonly parameters?: readonly string[] };
  readonly kernel?: { readonly path: string; readonly parameters?: readonly string[]; readonly initrd?: string };
  readonly image?: { readonly path: string; readonly format: string };
  readonly hwConfig?: unknown;
}

export interface Linux {
  readonly uidMappings?: readonly IdMapping[];
  readonly gidMappings?: readonly IdMapping[];
  readonly sysctl?: Readonly<Record<string, string>>;
  readonly resources?: Resources;
  readonly cgroupsPath?: string;
  readonly namespaces?: readonly Namespace[];
  readonly devices?: readonly Device[];
  readonly netDevices?: unknown;
  readonly seccomp?: Seccomp;
  readonly rootfsPropagation?: string;
  readonly maskedPaths?: readonly string[];
  readonly readonlyPaths?: readonly string[];
  readonly mountLabel?: string;
  readonly intelRdt?: unknown;
  readonly memoryPolicy?: unknown;
  readonly personality?: Personality;
  readonly timeOffsets?: Readonly<Record<string, TimeOffset>>;
}

export const namespaceTypes = ["pid", "network", "mount", "ipc", "uts", "user", "cgroup", "time"] as const;
export type NamespaceType = (typeof namespaceTypes)[number];

export interface Namespace {
  readonly type: NamespaceType;
  /** Of an existing namespace to join; absent or empty: a new one. */
  readonly path?: string;
}

export interface Device {
  readonly type: "c" | "b" | "u" | "p";
  readonly path: string;
  readonly major?: number;
  readonly minor?: number;
  readonly fileMode?: number;
  readonly uid?: number;
  readonly gid?: number;
}

export interface Personality {
  readonly domain: string;
  readonly flags?: readonly string[];
}

export interface TimeOffset {
  readonly secs?: Int64;
  readonly nanosecs?: number;
}

export interface Resources {
  readonly devices?: readonly DeviceRule[];
  readonly memory?: Memory;
  readonly cpu?: Cpu;
  readonly pids?: { readonly limit?: Int64 };
  readonly blockIO?: BlockIo;
  readonly hugepageLimits?: readonly HugepageLimit[];
  readonly network?: NetworkClass;
  readonly rdma?: Readonly<Record<string, Rdma>>;
  readonly unified?: Readonly<Record<string, string>>;
}

export interface DeviceRule {
  readonly allow: boolean;
  readonly type?: string;
  readonly major?: number;
  readonly minor?: number;
  readonly access?: string;
}

/** Bytes; -1 is no limit. */
export interface Memory {
  readonly limit?: Int64;
  readonly reservation?: Int64;
  readonly swap?: Int64;
  readonly kernel?: Int64;
  readonly kernelTCP?: Int64;
  readonly swappiness?: Int64;
  readonly disableOOMKiller?: boolean;
  readonly useHierarchy?: boolean;
  readonly checkBeforeUpdate?: boolean;
}

export interface Cpu {
  readonly shares?: Int64;
  /** Microseconds of each period; 0 and negative: no limit. */
  readonly quota?: Int64;
  readonly burst?: Int64;
  /** Microseconds. */
  readonly period?: Int64;
  readonly realtimeRuntime?: Int64;
  readonly realtimePeriod?: Int64;
  readonly cpus?: string;
  readonly mems?: string;
  readonly idle?: Int64;
}

export interface BlockIo {
  readonly weight?: number;
  readonly leafWeight?: number;
  readonly weightDevice?: readonly WeightDevice[];
  readonly throttleReadBpsDevice?: readonly ThrottleDevice[];
  readonly throttleWriteBpsDevice?: readonly ThrottleDevice[];
  readonly throttleReadIOPSDevice?: readonly ThrottleDevice[];
  readonly throttleWriteIOPSDevice?: readonly ThrottleDevice[];
}

export interface WeightDevice {
  readonly major: number;
  readonly minor: number;
  readonly weight?: number;
  readonly leafWeight?: number;
}

export interface ThrottleDevice {
  readonly major: number;
  readonly minor: number;
  readonly rate: Int64;
}

export interface HugepageLimit {
  readonly pageSize: string;
  readonly limit: Int64;
}

export interface NetworkClass {
  readonly classID?: number;
  readonly priorities?: readonly { readonly name: string; readonly priority: number }[];
}

export interface Rdma {
  readonly hcaHandles?: number;
  readonly hcaObjects?: number;
}

export interface Seccomp {
  readonly defaultAction: string;
  readonly defaultErrnoRet?: number;
  readonly architectures?: readonly string[];
  readonly flags?: readonly string[];
  readonly listenerPath?: string;
  readonly listenerMetadata?: string;
  readonly syscalls?: readonly SyscallRule[];
}

export interface SyscallRule {
  readonly names: readonly string[];
  readonly action: string;
  readonly errnoRet?: number;
  readonly args?: readonly SyscallArgument[];
}

export interface SyscallArgument {
  readonly index: number;
  readonly value: Int64;
  readonly valueTwo?: Int64;
  readonly op: string;
}
