/** From a bundle and a checkpoint to the sandbox in which the container goes on. Everything that can be refused is refused here, before anything starts. */
import { statSync } from "node:fs";
import { demandUnchanged } from "../checkpoint/disks.ts";
import type { Image } from "../checkpoint/image.ts";
import { demandSameMachine, type Manifest } from "../checkpoint/manifest.ts";
import type { Config } from "../config/config.ts";
import { HuskError } from "../errors.ts";
import type { MountPoint } from "../host/sandbox-plan.ts";
import type { Bundle } from "../oci/bundle.ts";
import { guestPath, type ShownPath, sharePoint } from "../storage/container-storage.ts";
import { demandSaveable, restorerOf } from "./checkpoint.ts";
import type { ContainerPlan } from "./plan-container.ts";
import { guestHostname, planCheckpointedVm, type VmPlan } from "./plan-vm.ts";

/**
 * Plans the virtual machine. `plan`: the bundle's, which has to say the same of the guest's side as the checkpoint; `folder`: the checkpoint's, for messages.
 * Throws `invalid-argument`, `unsupported` or `host`.
 */
export async function planRestore(bundle: Bundle, plan: ContainerPlan, config: Config, image: Image, folder: string): Promise<VmPlan> {
  const { manifest } = image;
  const { container, disks } = manifest;
  if (container.terminal !== plan.container.terminal) {
    const has = (terminal: boolean): string => (terminal ? "a terminal" : "no terminal");
    throw new HuskError(
      "invalid-argument",
      `config.json: process.terminal: the checkpointed container has ${has(container.terminal)}, the bundle's ${has(plan.container.terminal)}`,
    );
  }
  const planned = await planCheckpointedVm(bundle.spec, config, image);
  const shown = shownAsThen(plan.shown, container, plan.container.specJson);
  const spec = {
    ...planned.vm,
    id: "",
    hostname: guestHostname,
    netns: plan.netns,
    cgroups: [],
    shares: shown.length > 0,
    mounts: shown,
    disks: plan.disks,
    agentSocket: "",
    remains: [],
    consoleLog: "",
  };
  demandSaveable(spec);
  await demandUnchanged(disks, plan.disks, folder, planned.vm.programs.helper);
  demandSameMachine(manifest, restorerOf(spec));
  const changed = changedFields(container.spec, plan.container.specJson);
  const note = `config.json has changed since the checkpoint, and what runs has not: ${changed.join(", ")}`;
  return { ...planned, shown, notes: [...planned.notes, ...(changed.length === 0 ? [] : [note])] };
}

/**
 * What the host shows, under the names by which the guest has it: engines put their mounts in another order each time, and a bind mount is known by where it is in
 * the container. Programs of hooks have run, and are not there. Throws `invalid-argument` where the bundle's bind mounts are not those of the container.
 */
function shownAsThen(shown: readonly ShownPath[], { guestId, spec }: Manifest["container"], now: string): ShownPath[] {
  const left = sharedMounts(spec);
  const root = `${guestId}/rootfs`;
  const names = new Map([[root, root]]);
  for (const { destination, target } of sharedMounts(now)) {
    const at = left.findIndex((mount) => mount.destination === destination);
    const [same] = at === -1 ? [] : left.splice(at, 1);
    if (same === undefined) throw otherMounts(`nothing of the host's on ${destination}, and the bundle has`);
    names.set(target, same.target);
  }
  const [missing] = left;
  if (missing !== undefined) throw otherMounts(`something of the host's on ${missing.destination}, and the bundle has not`);
  return shown.flatMap((path) => {
    const target = names.get(path.target);
    if (target === undefined) return [];
    // The guest knows them; another root than it had at the checkpoint may lack them.
    return [target === root ? { ...path, target, mountPoints: rootMountPoints(shown, now) } : { ...path, target }];
  });
}

/** Where something is mounted in the root itself, and not in what is mounted there. */
function rootMountPoints(shown: readonly ShownPath[], document: string): MountPoint[] {
  const { mounts } = parse(document);
  const files = new Set(shown.filter(({ source }) => !statSync(source).isDirectory()).map(guestPath));
  const points: MountPoint[] = [];
  for (const mount of Array.isArray(mounts) ? mounts : []) {
    const { destination: path, source } = isFields(mount) ? mount : {};
    if (typeof path !== "string" || points.some((above) => path === above.path || path.startsWith(`${above.path}/`))) continue;
    points.push({ path, folder: !(typeof source === "string" && files.has(source)) });
  }
  return points;
}

function otherMounts(what: string): HuskError {
  return new HuskError("invalid-argument", `config.json: mounts: the checkpointed container has ${what}`, {
    hint: "restore it with bind mounts on the same paths",
  });
}

/** The mounts of a specification in the guest's words that are of the host's files, and under which name below the shared folder. */
function sharedMounts(document: string): { readonly destination: string; readonly target: string }[] {
  const { mounts } = parse(document);
  return (Array.isArray(mounts) ? mounts : []).flatMap((mount: unknown) => {
    const { destination, source } = isFields(mount) ? mount : {};
    const [, target] = typeof source === "string" ? (nameBelowShare.exec(source) ?? []) : [];
    return typeof destination === "string" && target !== undefined ? [{ destination, target }] : [];
  });
}

/** As `guestPath` makes it of what `planBind` plans. */
const nameBelowShare = new RegExp(`^${sharePoint}/([\\w+.-]+/mount\\d+)$`);

/** The first fields of two specifications, two levels deep, that are not the same. */
function changedFields(then: string, now: string): string[] {
  const [before, after] = [parse(then), parse(now)];
  const differing = (a: Fields, b: Fields): string[] =>
    [...new Set([...Object.keys(a), ...Object.keys(b)])].filter((key) => JSON.stringify(a[key]) !== JSON.stringify(b[key]));
  return differing(before, after).flatMap((key) => {
    const [a, b] = [before[key], after[key]];
    return isFields(a) && isFields(b) ? differing(a, b).map((inner) => `${key}.${inner}`) : [key];
  });
}

type Fields = Readonly<Record<string, unknown>>;

function isFields(value: unknown): value is Fields {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}

function parse(text: string): Fields {
  try {
    const value: unknown = JSON.parse(text);
    if (isFields(value)) return value;
  } catch {
    // Told below.
  }
  throw new HuskError("invalid-argument", "the checkpoint's specification of its container is damaged");
}
