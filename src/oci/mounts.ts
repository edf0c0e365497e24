/**
 * What a mount of the specification is: what decides it is a bind mount, and what its options say to husk. The other options are the
 * agent's business.
 */
import path from "node:path";
import type { Mount, Spec } from "./types.ts";

/** A bind mount, by its type or by its options, as runc has it. */
export function isBind(mount: Mount): boolean {
  return mount.type === "bind" || (mount.options?.some((option) => option === "bind" || option === "rbind") ?? false);
}

/** Whether the last word among the options is for reading only. */
export function isReadonly(mount: Mount): boolean {
  const last = mount.options?.findLast((option) => ["ro", "rw", "rro", "rrw"].includes(option));
  return last === "ro" || last === "rro";
}

/** Whether it is read-only itself, and the mounts below it are not, as mount(8) and runc have `rbind` with `ro`: for all of them, there is `rro`. */
export function leavesWritableBelow(mount: Mount): boolean {
  const options = mount.options ?? [];
  return isReadonly(mount) && options.includes("rbind") && !options.includes("rro");
}

/** Whether mounts made in it are to be passed on. */
export function asksForSharing(mount: Mount): boolean {
  return mount.options?.some((option) => option === "shared" || option === "rshared") ?? false;
}

/** Where a mount goes, below "/": the specification lets old tools leave the slash out. */
export function destinationOf(mount: Mount): string {
  return path.posix.resolve("/", mount.destination);
}

/** What a root file system must have for the container's set-up: the mount points that are in no other mount, and the working directory. */
export function mountPoints({ mounts = [], process }: Pick<Spec, "mounts" | "process">): string[] {
  const destinations = mounts.map(destinationOf);
  const isBelow = (path: string, other: string): boolean => path !== other && path.startsWith(other === "/" ? other : `${other}/`);
  return [...destinations, path.posix.resolve("/", process.cwd)].filter((each) => !destinations.some((other) => isBelow(each, other)));
}

/** The host path of a bind mount's source, which may be relative to the bundle. */
export function bindSource(mount: Mount, bundle: string): string {
  return path.resolve(bundle, mount.source ?? "");
}
