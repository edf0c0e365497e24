/**
 * From a bundle to a container: what the guest is told to make, and what the host shows it. Everything that can be refused is refused here, before
 * anything is taken from the host.
 */
import type { Config } from "../config/config.ts";
import type { Storage } from "../gen/agent/v1/agent.ts";
import { helperPath } from "../host/installation.ts";
import { compileSeccomp } from "../host/seccomp.ts";
import { isSystemdHost } from "../host/systemd.ts";
import { type Bundle, inspectSources, isHostNetwork } from "../oci/bundle.ts";
import { cgroupOf, type ScopeName } from "../oci/cgroups-path.ts";
import { type CompiledSeccomp, guestSpec, type Share } from "../oci/guest-spec.ts";
import { inspectHookPrograms } from "../oci/hook-programs.ts";
import { stringifyJson } from "../oci/json.ts";
import { mountPoints } from "../oci/mounts.ts";
import { type GuestNamespace, judge, refuseUnsupported } from "../oci/support.ts";
import type { Hooks, Namespace } from "../oci/types.ts";
import { guestPath, type ImageDisk, planBind, planRoot, type ShownPath } from "../storage/container-storage.ts";
import { findRootFilesystem } from "../storage/root-filesystem.ts";
import type { ContainerSpec } from "./container.ts";
import { guestIdOf } from "./guest-id.ts";
import type { WindowSize } from "./stand-in.ts";

export interface ContainerPlanOptions {
  /** The container's. */
  readonly id: string;
  /** What the guest knows it by, where that is another. */
  readonly guestId?: string;
  /** The caller's terminal, where there is one and the bundle names no size. */
  readonly size: WindowSize | null;
  /** Whether the terminal leaves line feeds as they are. Absent: no. */
  readonly plainNewlines?: boolean;
  /** Whether systemd makes the cgroup; absent: where cgroupsPath has the form for that, and systemd is there. */
  readonly systemdCgroup?: boolean;
  /** Where a namespace's path leads in the sandbox that the container is to be in. */
  readonly guestNamespace?: (namespace: Namespace) => GuestNamespace | undefined;
  /** Where the guest has the memory that containers of the sandbox share: by the host's path of the tmpfs that they bind. Absent: each has its own. */
  readonly memory?: ReadonlyMap<string, string>;
}

export interface ContainerPlan {
  readonly container: ContainerSpec;
  /** Host paths that the guest must see. */
  readonly shown: readonly ShownPath[];
  /** Images that must be disks of the VM. */
  readonly disks: readonly ImageDisk[];
  /** What the stand-in's root is: the container's root file system, where that is a folder. */
  readonly standInRootfs: string | null;
  /** Memory that the container is the first to have, to be known to those that join its sandbox. */
  readonly memory: ReadonlyMap<string, string>;
  /** Seen from each hierarchy's root, or what systemd is asked for. */
  readonly cgroup: string | ScopeName;
  /** The network namespace that the bundle names; null: one of its own. */
  readonly netns: string | null;
  readonly hooks: Hooks;
  /** What is worth a line in the log: fields that the VM's boundary subsumes, properties that the spec does not know. */
  readonly notes: readonly string[];
}

/** Reads, checks and plans. Throws `invalid-argument` or `unsupported`. */
export async function planContainer(bundle: Bundle, options: ContainerPlanOptions, allow: Config["allow"]): Promise<ContainerPlan> {
  const { spec } = bundle;
  const { guestNamespace } = options;
  const id = guestIdOf(options.guestId ?? options.id);
  const seccomp = compile(spec); // meanwhile, the rest is read and judged
  const sources = await inspectSources(spec, bundle.path);
  const hookPrograms = inspectHookPrograms(spec.hooks?.createContainer);
  const notes = refuseUnsupported(
    judge(spec, {
      bundle: bundle.path,
      sources,
      hookPrograms,
      isHostNetwork,
      allowVmSection: allow.vmSection,
      allowedAnnotations: allow.annotations,
      ...(guestNamespace === undefined ? {} : { guestNamespace }),
    }),
  );
  const terminal = spec.process.terminal === true;
  const root = planRoot(id, findRootFilesystem(bundle.rootfs), spec.root.readonly === true, mountPoints(spec));
  const planned = ({ isFile: _isFile, ...share }: Share): ShownPath => planBind(id, share);
  const memory = new NewMemory(id);
  const guest = guestSpec(spec, {
    bundle: bundle.path,
    sources,
    rootPath: root.storage.mountPoint,
    guestPath: (share) => guestPath(planned(share)),
    hookPrograms,
    seccomp: await seccomp,
    ...(guestNamespace === undefined ? {} : { guestNamespace }),
    ...(options.memory === undefined ? {} : { guestMemory: memory.find(options.memory) }),
  });
  const consoleSize = spec.process.consoleSize;
  const cgroup = cgroupOf(spec.linux?.cgroupsPath, options.id, options.systemdCgroup, isSystemdHost());
  return {
    container: {
      id: options.id,
      guestId: id,
      specJson: stringifyJson(guest.spec),
      rootfs: root.storage,
      storages: memory.storages,
      terminal,
      plainNewlines: options.plainNewlines === true,
      names: {
        ...(spec.hostname ? { hostname: spec.hostname } : {}),
        ...(spec.domainname ? { domainname: spec.domainname } : {}),
      },
      consoleSize: consoleSize === undefined ? options.size : { rows: consoleSize.height, columns: consoleSize.width },
      title: spec.process.args,
    },
    shown: [...root.shown, ...guest.shares.map(planned)],
    disks: root.disks,
    standInRootfs: root.shown.length > 0 ? bundle.rootfs : null,
    memory: memory.paths,
    cgroup,
    netns: networkNamespace(bundle),
    hooks: spec.hooks ?? {},
    notes: [
      ...notes,
      ...(typeof cgroup === "string" ? [] : propertyNotes(spec.annotations)),
      ...bundle.unknown.map((path) => `config.json: ${path} is no property of the runtime spec and was ignored`),
    ],
  };
}

/** runc gives these to systemd as they stand: any property, of whose meaning for a sandbox nobody knows. */
function propertyNotes(annotations: Readonly<Record<string, string>> = {}): string[] {
  return Object.keys(annotations)
    .filter((name) => name.startsWith("org.systemd.property."))
    .map((name) => `config.json: annotations[${JSON.stringify(name)}]: the scope has husk's own properties, and not this one`);
}

/** Compiles the bundle's seccomp profile. What the rest of the bundle is refused for comes first: its failure waits to be asked for. */
function compile({ linux }: Bundle["spec"]): Promise<CompiledSeccomp | null> {
  if (linux?.seccomp === undefined) return Promise.resolve(null);
  const compiled = compileSeccomp(helperPath(), linux.seccomp);
  compiled.catch(() => {});
  return compiled;
}

/** Memory of the guest's that the container is the first to have: file systems of its own, from which others can bind it as well. */
class NewMemory {
  readonly paths = new Map<string, string>();
  readonly storages: Storage[] = [];
  readonly #id: string;

  constructor(id: string) {
    this.#id = id;
  }

  /** See `GuestSpecOptions.guestMemory`. `known`: what the sandbox has already. */
  find(known: ReadonlyMap<string, string>): (hostPath: string, options: readonly string[]) => string {
    return (hostPath, options) => known.get(hostPath) ?? this.paths.get(hostPath) ?? this.#make(hostPath, options);
  }

  #make(hostPath: string, options: readonly string[]): string {
    const mountPoint = `/run/husk/containers/${this.#id}/memory${this.storages.length}`;
    this.storages.push({ driver: "ephemeral", source: "shm", fstype: "tmpfs", options: [...options], mountPoint, overlay: false });
    this.paths.set(hostPath, mountPoint);
    return mountPoint;
  }
}

/** The path of the network namespace that a bundle names, if any. One that names no network namespace at all is refused by `planContainer`. */
export function networkNamespace({ spec }: Bundle): string | null {
  const path = spec.linux?.namespaces?.find((namespace) => namespace.type === "network")?.path;
  return path === undefined || path === "" ? null : path;
}
