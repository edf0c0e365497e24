/** How a container's root file system and bind mounts reach the guest: what the host shows or plugs in, and what the agent mounts. */
import type { Storage } from "../gen/agent/v1/agent.ts";
import type { MountPoint } from "../host/sandbox-plan.ts";
import { mayLack, type RootFilesystem, readonlyFilesystems } from "./root-filesystem.ts";

/** Where the guest mounts what the host shares, and where it puts containers' root file systems together. */
export const sharePoint = "/run/husk/shared";

/** A host path shown below the shared folder. */
export interface ShownPath {
  readonly source: string;
  /** Relative to the shared folder. */
  readonly target: string;
  readonly readonly: boolean;
  /** See `SandboxMount.overlay`. */
  readonly overlay?: readonly string[];
  /** See `SandboxMount.follows`. */
  readonly follows?: true;
  /** See `SandboxMount.recursive`. */
  readonly recursive?: false;
  /** See `SandboxMount.writableBelow`. */
  readonly writableBelow?: true;
  /** See `SandboxMount.mountPoints`. */
  readonly mountPoints?: readonly MountPoint[];
}

/** A block image that becomes a disk of the VM. */
export interface ImageDisk {
  readonly serial: string;
  readonly path: string;
  readonly isDevice: boolean;
  readonly readonly: boolean;
}

export interface RootPlan {
  readonly shown: readonly ShownPath[];
  readonly disks: readonly ImageDisk[];
  readonly storage: Storage;
}

/**
 * Plans the root file system. `readonly`: the spec's root.readonly, which then holds on the host as well as in the guest; mount points that such a root lacks
 * are made in a layer over it, where runc makes them in the root itself. `mountPoints`: absolute, in the container.
 */
export function planRoot(containerId: string, root: RootFilesystem, readonly: boolean, mountPoints: readonly string[]): RootPlan {
  const mountPoint = `/run/husk/containers/${containerId}/rootfs`;
  const covered = readonly && mayLack(root, mountPoints);
  if (root.kind === "folder") {
    const shown = { source: root.path, target: `${containerId}/rootfs`, readonly };
    const storage = { driver: "virtiofs", source: guestPath(shown), fstype: "", options: [], mountPoint, overlay: covered };
    return { shown: [shown], disks: [], storage };
  }
  // Nothing is ever written to an image that cannot be: a container that may write gets a layer of its own, in memory.
  const fixed = readonlyFilesystems.has(root.fstype);
  const disk = { serial: "root", path: root.path, isDevice: root.isDevice, readonly: readonly || fixed };
  const storage = {
    driver: "block",
    source: disk.serial,
    fstype: root.fstype,
    options: disk.readonly ? ["ro"] : ["rw"],
    mountPoint,
    overlay: covered || (fixed && !readonly),
  };
  return { shown: [], disks: [disk], storage };
}

/** A bind mount's source, and how it is shown. */
export interface BindSource extends Pick<ShownPath, "readonly" | "overlay" | "follows" | "recursive" | "writableBelow"> {
  readonly index: number;
  readonly hostPath: string;
}

/** Plans a bind mount's source: shown as number `index` of the container. */
export function planBind(containerId: string, { index, hostPath, ...shown }: BindSource): ShownPath {
  return { source: hostPath, target: `${containerId}/mount${index}`, ...shown };
}

/** Where the guest finds what is shown. */
export function guestPath(shown: ShownPath): string {
  return `${sharePoint}/${shown.target}`;
}
