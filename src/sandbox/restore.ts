/** From a bundle and a checkpoint to the sandbox in which the container goes on. Everything that can be refused is refused here, before anything starts. */
import { demandUnchanged } from "../checkpoint/disks.ts";
import type { Image } from "../checkpoint/image.ts";
import { demandSameMachine } from "../checkpoint/manifest.ts";
import type { Config } from "../config/config.ts";
import { HuskError } from "../errors.ts";
import type { Bundle } from "../oci/bundle.ts";
import { demandSaveable, restorerOf } from "./checkpoint.ts";
import { shownNames } from "./folder-exchange.ts";
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
  const spec = {
    ...planned.vm,
    id: "",
    hostname: guestHostname,
    netns: plan.netns,
    cgroups: [],
    shares: plan.shown.length > 0,
    mounts: plan.shown,
    disks: plan.disks,
    agentSocket: "",
    remains: [],
    consoleLog: "",
  };
  demandSaveable(spec);
  demandSameShown(manifest.folder?.shown, shownNames(plan.shown));
  await demandUnchanged(disks, plan.disks, folder, planned.vm.programs.helper);
  demandSameMachine(manifest, restorerOf(spec));
  const changed = changedFields(container.spec, plan.container.specJson);
  const note = `config.json has changed since the checkpoint, and what runs has not: ${changed.join(", ")}`;
  return { ...planned, notes: [...planned.notes, ...(changed.length === 0 ? [] : [note])] };
}

/** What the container has of the host's, it has from beginning to end: its root, where that is a folder, and its bind mounts. */
function demandSameShown(saved: readonly string[] = [], here: readonly string[]): void {
  if (JSON.stringify(saved) === JSON.stringify(here)) return;
  throw new HuskError(
    "invalid-argument",
    `config.json: the checkpointed container has ${saved.length} folders and files of the host (root and bind mounts), the bundle's ${here.length}`,
    { hint: "restore it with the same kind of root and as many bind mounts in the same order" },
  );
}

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
