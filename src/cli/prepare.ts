/** From a bundle, the configuration and the flags to what the supervisor is to make. */
import { readFileSync } from "node:fs";
import { userInfo } from "node:os";
import { join } from "node:path";
import type { Config } from "../config/config.ts";
import { HuskError } from "../errors.ts";
import { findHierarchies } from "../host/cgroups.ts";
import { installationFolder } from "../host/installation.ts";
import { identify } from "../host/process-identity.ts";
import { type Bundle, loadBundle } from "../oci/bundle.ts";
import { planContainer } from "../sandbox/plan-container.ts";
import { guestHostname, planVm } from "../sandbox/plan-vm.ts";
import type { WindowSize } from "../sandbox/stand-in.ts";
import type { SupervisorInput } from "../sandbox/supervisor.ts";
import type { AcceleratorChoice } from "../vmm/accelerator.ts";

/** What the command line asks for, apart from the configuration. */
export interface PrepareOptions {
  readonly root: string;
  readonly id: string;
  /** The bundle's folder. */
  readonly bundle: string;
  readonly consoleSocket: string | null;
  /** Whether the caller stays until the container ends. */
  readonly foreground: boolean;
  /** Whether a container in the foreground stays in the records after its end. */
  readonly keep: boolean;
  /** The caller's terminal, where there is one. */
  readonly size: WindowSize | null;
}

export interface Prepared {
  readonly input: SupervisorInput;
  readonly accelerator: AcceleratorChoice;
  /** ContainerPlan.notes and VmPlan.notes. */
  readonly notes: readonly string[];
}

/** Reads, checks and plans. Throws `invalid-argument`, `unsupported` or `host`. */
export async function prepare(options: PrepareOptions, config: Config): Promise<Prepared> {
  const bundle = await loadBundle(options.bundle);
  const plan = await planContainer(bundle, { id: options.id, size: options.size }, config.allow);
  if (plan.container.terminal && !options.foreground && options.consoleSocket === null) {
    throw new HuskError(
      "invalid-argument",
      "config.json: process.terminal: a container in the background needs --console-socket for its terminal",
    );
  }
  const { vm, accelerator, cgroupLimits, notes } = await planVm(bundle.spec, config);
  return {
    accelerator,
    notes: [...plan.notes, ...notes],
    input: {
      root: options.root,
      record: firstRecord(options, bundle),
      container: plan.container,
      sandbox: {
        ...vm,
        id: options.id,
        hostname: guestHostname,
        netns: plan.netns,
        shares: plan.shown.length > 0,
        mounts: plan.shown,
        disks: plan.disks,
        // A container in the foreground is nobody's to delete once its supervisor was killed; any other is left as stopped, for its owner.
        remains: options.foreground && !options.keep ? deletion(options) : [],
      },
      standInRootfs: plan.standInRootfs,
      consoleSocket: options.consoleSocket,
      hierarchies: findHierarchies(readFileSync("/proc/self/mountinfo", "utf8")),
      cgroupsPath: plan.cgroupsPath,
      cgroupLimits,
      hooks: plan.hooks,
      stopMs: config.deadlines.stopMs,
    },
  };
}

function firstRecord(options: PrepareOptions, bundle: Bundle): SupervisorInput["record"] {
  const { spec } = bundle;
  return {
    version: 1,
    ociVersion: spec.ociVersion,
    id: options.id,
    status: "creating",
    pid: 0,
    pidStart: 0,
    supervisor: identify(process.pid) ?? null,
    bundle: bundle.path,
    rootfs: bundle.rootfs,
    created: new Date().toISOString(),
    owner: userInfo().username,
    annotations: spec.annotations ?? {},
    terminal: spec.process.terminal === true,
    foreground: options.foreground && !options.keep,
    poststop: spec.hooks?.poststop ?? [],
  };
}

/** The command that deletes the container without its supervisor. */
function deletion({ root, id }: PrepareOptions): string[] {
  return [process.execPath, join(installationFolder(), "dist/husk.js"), "--root", root, "delete", "--force", id];
}
