/** What a supervisor is to make. */
import type { CgroupLimits } from "../host/cgroups.ts";
import type { HostHook } from "../host/hooks.ts";
import type { CgroupPlace } from "../host/sandbox-cgroups.ts";
import type { SizeDefaults } from "../oci/resources.ts";
import type { Resources } from "../oci/types.ts";
import type { ImageDisk, ShownPath } from "../storage/container-storage.ts";
import type { ContainerSpec } from "./container.ts";
import type { LaunchSandbox } from "./hosted-sandbox.ts";
import type { ContainerRecord } from "./record.ts";
import type { SandboxSpec } from "./sandbox-plan.ts";

/** A container to be made, all of it checked already. */
export interface ContainerInput {
  readonly root: string;
  /** The record as it is to begin: status creating. */
  readonly record: ContainerRecord;
  readonly container: ContainerSpec;
  /** What the guest must see of the host. */
  readonly shown: readonly ShownPath[];
  readonly disks: readonly ImageDisk[];
  /** Memory that containers of the sandbox share, of which this one is the first to have it: see `ContainerPlan.memory`. */
  readonly memory: ReadonlyMap<string, string>;
  /** What the stand-in's root is: the container's root file system, where that is a folder. */
  readonly standInRootfs: string | null;
  readonly consoleSocket: string | null;
  readonly cgroups: CgroupPlace;
  /** The bundle's linux.resources. */
  readonly resources: Resources;
  readonly hooks: Readonly<Partial<Record<"prestart" | "createRuntime" | "poststart" | "poststop", readonly HostHook[]>>>;
  /** How long a guest may take to write back what it holds at the end. */
  readonly stopMs: number;
  /** How long it may take for anything else. */
  readonly callMs: number;
  /** Gives back what the helper took. */
  readonly helper: string;
}

/** A container with the sandbox that is to be launched for it. */
export interface SupervisorInput extends ContainerInput {
  readonly sandbox: Omit<SandboxSpec, "cgroups" | "agentSocket" | "consoleLog">;
  readonly cgroupLimits: CgroupLimits;
  /** HostedSandboxSpec.launch. */
  readonly launch?: LaunchSandbox;
  /** What sizes follow where limits do not say. */
  readonly sizing: SizeDefaults;
}

/**
 * Whether the guest may make the first container of a sandbox while the host's side of it is made. Not where hooks are to come first, nor where the stand-in's terminal
 * says how large the container's is.
 */
export function createsBeside({ hooks: { prestart = [], createRuntime = [] }, container }: ContainerInput): boolean {
  return prestart.length + createRuntime.length === 0 && !container.terminal;
}
