/** What `husk-helper sandbox` is asked to make; guest-agent/helper/PROTOCOL.md says what each part means. */
export interface SandboxPlan {
  /** Cgroup folders that everything in the sandbox joins. */
  readonly cgroups: readonly string[];
  /** Unix sockets bound in the host's mount namespace and inherited, listening, under a descriptor's number. */
  readonly listen: readonly { readonly fd: number; readonly path: string; readonly packets?: true }[];
  /** Zygotes' sockets, connected in the host's mount namespace. */
  readonly dial?: readonly { readonly fd: number; readonly path: string }[];
  /** Files and block devices opened in the host's mount namespace. */
  readonly open: readonly { readonly fd: number; readonly path: string; readonly write: boolean }[];
  /** Memory that programs share under a descriptor's number, all zeroes at first; or a template's, which nobody can write to any more. */
  readonly memory: readonly SandboxMemory[];
  /** The descriptor of a socket whose other end the helper keeps: QEMU's second monitor, for `SandboxProcess.give`. */
  readonly monitor?: number;
  readonly tree: { readonly readonly: readonly string[]; readonly devices: readonly SandboxDevice[] };
  /** Who QEMU runs as. */
  readonly user: { readonly uid: number; readonly gid: number };
  readonly mounts: readonly SandboxMount[];
  readonly processes: readonly SandboxProgram[];
  /** Whether it is a zygote's: it stays in the host's PID namespace, in which its copies are made. */
  readonly zygote?: true;
  /** A program that gives back what the kernel does not, run on the host once everything is dead, where the supervisor dies before it has said that nothing remains; []: none. */
  readonly remains: readonly string[];
}

export interface SandboxMemory {
  readonly fd: number;
  readonly bytes: number;
  readonly template?: TemplateMemory;
  /** The sum of what `SandboxProcess.fill` has filled it with. */
  readonly filled?: string;
}

/** What a template's memory holds, and how it is found where another sandbox has it already. */
export interface TemplateMemory {
  /** Tells it apart from any other content. */
  readonly name: string;
  readonly ram: string;
  /** Of `ram` (`husk-helper template sum`). */
  readonly sum: string;
  /** The file that says who has it, read and written by helpers alone. */
  readonly record: string;
}

export type SandboxDevice = "kvm" | "net/tun" | "vhost-net" | "vhost-vsock";

/** A host path shown below the sandbox's shared folder. */
export interface SandboxMount {
  readonly source: string;
  /** Relative to the shared folder. */
  readonly target: string;
  readonly readonly: boolean;
  /** Not the source itself, but an overlay file system with these options, whose paths are the host's. */
  readonly overlay?: readonly string[];
  /** Mounts that the host makes below it later, and takes away, do so here (where the source's propagation is shared). */
  readonly follows?: true;
  /** Without the mounts below it. */
  readonly recursive?: false;
  /** Only the mount itself is read-only, and not those below it. */
  readonly writableBelow?: true;
  /** What is made in it where it is missing, unless nothing can be written there. */
  readonly mountPoints?: readonly MountPoint[];
}

/** Where something is to be mounted, in a tree that is shown: an absolute path in that. */
export interface MountPoint {
  readonly path: string;
  /** A folder; else a file. */
  readonly folder: boolean;
}

export interface SandboxProgram {
  readonly name: string;
  readonly argv: readonly string[];
  /** "user": the plan's unprivileged user; "root": with what the program needs to drop privileges itself. */
  readonly user: "user" | "root";
  /** Descriptors that it inherits, under the same numbers. */
  readonly fds: readonly number[];
  /** A unix socket bound for it in the sandbox's tree, inherited as `socketFd`. */
  readonly socket?: string;
  readonly socketFd?: number;
  /** Its writable mappings of a template's memory are private ones. */
  readonly privateMemory?: true;
  /** It makes copies of itself for whoever asks on the listening socket that is this descriptor. */
  readonly zygote?: number;
  /**
   * It is not started, but copied from the zygote behind the connection `from`. `memory`: the descriptor of memory of its own, else it has the zygote's.
   * `places`: descriptors that it has under other numbers than the sandbox, which come second.
   */
  readonly copy?: { readonly from: number; readonly memory?: number; readonly places: readonly (readonly [number, number])[] };
}
