/**
 * What becomes of each mount of a bundle: the guest mounts it itself, the host shares the source, something of the guest's own takes its
 * place, or it is refused. Engines write mounts of all these kinds without being asked, see the fixtures.
 */
import { guestCanMount, guestDevice } from "./guest.ts";
import { asksForSharing, destinationOf, isBind, isReadonly, leavesWritableBelow } from "./mounts.ts";
import type { Source } from "./sources.ts";
import type { Mount } from "./types.ts";

export type MountPlan =
  /** As it stands. */
  | { readonly action: "keep"; readonly note?: string }
  /** The host shares the source with the sandbox. */
  | {
      readonly action: "share";
      readonly hostPath: string;
      readonly readonly: boolean;
      readonly isFile: boolean;
      readonly overlay?: readonly string[];
      /** Mounts that the host makes below it later show as well. */
      readonly follows?: true;
      /** Without the mounts below it. */
      readonly recursive?: false;
      /** Only the mount itself is read-only, and not those below it. */
      readonly writableBelow?: true;
      readonly note?: string;
    }
  /** Another mount takes its place; nothing of the host's is in it. */
  | {
      readonly action: "replace";
      readonly mount: Mount;
      /** The tmpfs of the host whose place it takes as shared memory. */
      readonly memoryOf?: string;
      readonly note?: string;
    }
  /** There is nothing to mount. */
  | { readonly action: "drop"; readonly note: string }
  | { readonly action: "refuse"; readonly reason: string };

const refuse = (reason: string): MountPlan => ({ action: "refuse", reason });

/**
 * @param source what the host has at the mount's source, for a bind mount.
 * @param sourcePath the source as an absolute path of the host, for the messages.
 */
export function planMount(mount: Mount, source: Source | undefined, sourcePath: string): MountPlan {
  if (isSet(mount.uidMappings) || isSet(mount.gidMappings) || hasOption(mount, "idmap", "ridmap")) {
    return refuse("an id-mapped mount is not supported: virtio-fs has no id-mapped mounts");
  }
  if (destinationOf(mount) === "/") return refuse("a mount over the root itself: root.path says what that is");
  return isBind(mount) ? planBind(mount, source, sourcePath) : planFileSystem(mount);
}

function planFileSystem(mount: Mount): MountPlan {
  if (mount.type === undefined || mount.type === "") return refuse("it has neither a type nor the option bind");
  if (guestCanMount(mount.type)) return { action: "keep" };
  if (mount.type === "overlay") return planOverlay(mount);
  return refuse(
    `the file system ${mount.type} cannot be mounted in the guest: what it stands on is the host's; mount it there, and bind the folder`,
  );
}

/** Podman's volumes with the option O: the host puts the layers together, since they are its folders, and shares the result. */
function planOverlay(mount: Mount): MountPlan {
  const overlay = mount.options?.filter(isOverlayOption) ?? [];
  const folders = overlay.flatMap((option) => /^(?:lower|upper|work)dir=(.*)$/.exec(option)?.[1]?.split(":") ?? []);
  const [lower] = folders;
  if (lower === undefined || !overlay.some((option) => option.startsWith("lowerdir=")))
    return refuse("an overlay needs the option lowerdir");
  const relative = folders.find((folder) => !folder.startsWith("/"));
  if (relative !== undefined) return refuse(`an overlay's folders must be absolute paths, and ${relative} is none`);
  return { action: "share", hostPath: lower, readonly: isReadonly(mount), isFile: false, overlay };
}

/** Those of overlayfs itself; all others are about the mount. */
export function isOverlayOption(option: string): boolean {
  return option.includes("=") || option === "userxattr" || option === "volatile";
}

function planBind(mount: Mount, source: Source | undefined, sourcePath: string): MountPlan {
  if (mount.source === undefined || mount.source === "" || source === undefined) return refuse("a bind mount needs a source");
  // Where the host's mount is not shared, nothing would go back with runc either: the option is about the container's own mounts.
  if (asksForSharing(mount) && "shared" in source && source.shared === true) {
    return refuse("propagation back to the host (shared) is not supported: mounts made in the guest are the guest's");
  }
  const what = `source ${sourcePath}`;
  switch (source.kind) {
    case "missing":
      return refuse(`${what} does not exist`);
    case "unreadable":
      return refuse(`${what} cannot be looked at: ${source.reason}`);
    case "socket":
      return refuse(`${what} is a unix socket: a unix socket of the host cannot cross into a virtual machine`);
    case "fifo":
      return refuse(`${what} is a FIFO: a FIFO of the host cannot cross into a virtual machine`);
    case "block-device":
      return refuse(`${what} is a block device of the host, which the guest does not have`);
    case "character-device": {
      const own = guestDevice(source);
      if (own === undefined) return refuse(`${what} is a device of the host, which the guest does not have`);
      return { action: "replace", mount: { ...mount, source: own } };
    }
    case "file":
    case "folder":
      break;
  }
  return planTree(mount, source, what);
}

function planTree(mount: Mount, source: Extract<Source, { kind: "file" | "folder" }>, what: string): MountPlan {
  const { realPath } = source;
  if (destinationOf(mount) === "/dev/shm") {
    if (realPath === "/dev/shm") return refuse(`${what} is the host's shared memory, which a virtual machine cannot take part in`);
    if (source.kind === "folder" && source.tmpfsBytes !== undefined) {
      const note = "shared memory is a tmpfs of the guest";
      return { action: "replace", mount: sharedMemory(mount, source.tmpfsBytes), memoryOf: realPath, note };
    }
  }
  const own = planKernelTree(mount, realPath);
  if (own !== undefined) return own;
  if (/^\/(proc|sys|dev)(\/|$)/.test(realPath) && !/^\/dev\/shm(\/|$)/.test(realPath)) {
    return refuse(`${what} belongs to the host's kernel, which is not the guest's`);
  }
  const follows = source.kind === "folder" && hasOption(mount, "slave", "rslave") ? ({ follows: true } as const) : {};
  // Where nothing can be below, the guest knows of it as well.
  const mayHaveBelow = "follows" in follows || (source.kind === "folder" && source.mountsBelow === true);
  const below = mayHaveBelow && leavesWritableBelow(mount) ? ({ writableBelow: true } as const) : {};
  const alone = source.kind === "folder" && hasOption(mount, "bind") && !hasOption(mount, "rbind") ? ({ recursive: false } as const) : {};
  return {
    action: "share",
    hostPath: realPath,
    readonly: isReadonly(mount),
    isFile: source.kind === "file",
    ...follows,
    ...alone,
    ...below,
  };
}

/** The parts of the host's kernel that engines bind to their usual places, of which the guest's kernel has its own. */
function planKernelTree(mount: Mount, realPath: string): MountPlan | undefined {
  const options = ["nosuid", "noexec", "nodev", "relatime", isReadonly(mount) ? "ro" : "rw"];
  const destination = destinationOf(mount);
  if (realPath === "/sys/fs/cgroup") {
    const own: Mount = { destination: mount.destination, type: "cgroup", source: "cgroup", options };
    return { action: "replace", mount: own, note: "the guest's cgroups take the place of the host's" };
  }
  // Podman, for systemd in a container, on a host that still has cgroup v1.
  if (realPath.startsWith("/sys/fs/cgroup/") && destination === realPath) {
    return { action: "drop", note: "the guest's cgroups are of version 2, and have no such hierarchy" };
  }
  if (realPath === "/sys" && destination === "/sys") {
    const own: Mount = { destination: mount.destination, type: "sysfs", source: "sysfs", options };
    return { action: "replace", mount: own, note: "the guest's sysfs takes the place of the host's" };
  }
  return undefined;
}

/** Podman and containerd bind a tmpfs of the host to /dev/shm: futexes and shared mappings belong into the guest's memory. */
function sharedMemory(mount: Mount, sizeBytes: number): Mount {
  const options = ["nosuid", "noexec", "nodev", "mode=1777", `size=${Math.ceil(sizeBytes / 1024)}k`, ...(isReadonly(mount) ? ["ro"] : [])];
  return { destination: mount.destination, type: "tmpfs", source: "shm", options };
}

function hasOption(mount: Mount, ...names: readonly string[]): boolean {
  return mount.options?.some((option) => names.includes(option)) ?? false;
}

function isSet(list: readonly unknown[] | undefined): boolean {
  return list !== undefined && list.length > 0;
}
