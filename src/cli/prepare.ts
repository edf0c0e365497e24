/** From a bundle, the configuration and the flags to what the supervisor is to make. */
import { readFileSync } from "node:fs";
import { userInfo } from "node:os";
import { join } from "node:path";
import type { Config } from "../config/config.ts";
import { HuskError } from "../errors.ts";
import { findHierarchies } from "../host/cgroups.ts";
import { helperPath, installationFolder } from "../host/installation.ts";
import { identify } from "../host/process-identity.ts";
import type { Bundle } from "../oci/bundle.ts";
import { refuseBeyondMachine } from "../sandbox/guest-room.ts";
import { namespacesOf } from "../sandbox/neighbour.ts";
import { type ContainerPlan, type ContainerPlanOptions, planContainer } from "../sandbox/plan-container.ts";
import { guestHostname, planVm, type VmPlan } from "../sandbox/plan-vm.ts";
import type { Supervisor } from "../sandbox/supervisor.ts";
import type { ContainerInput, SupervisorInput } from "../sandbox/supervisor-input.ts";
import type { AcceleratorChoice } from "../vmm/accelerator.ts";
import type { CallerTerminal } from "./session.ts";

/** What the command line asks for, apart from the configuration. */
export interface PrepareOptions {
  readonly root: string;
  readonly id: string;
  /** Whether systemd is to make the cgroup. */
  readonly systemdCgroup: boolean;
  readonly consoleSocket: string | null;
  /** Whether the caller stays until the container ends. */
  readonly foreground: boolean;
  /** Whether a container in the foreground stays in the records after its end. */
  readonly keep: boolean;
  readonly terminal: CallerTerminal;
  /** The folder of the checkpoint that the container goes on from; null: it begins. */
  readonly imagePath: string | null;
}

export interface Prepared {
  readonly input: SupervisorInput;
  readonly accelerator: AcceleratorChoice;
  /** ContainerPlan.notes and VmPlan.notes. */
  readonly notes: readonly string[];
}

/** Plans the machine of a bundle. */
export type PlanMachine = (spec: Bundle["spec"], config: Config) => Promise<VmPlan>;

/**
 * Reads, checks and plans a container with a sandbox of its own. `planMachine`: where its machine comes from. Throws `invalid-argument`, `unsupported` or `host`.
 */
export async function prepare(
  bundle: Bundle,
  options: PrepareOptions,
  config: Config,
  mark: (phase: string) => void,
  planMachine: PlanMachine = planVm,
): Promise<Prepared> {
  const image = options.imagePath === null ? null : (await import("../checkpoint/image.ts")).openImage(options.imagePath);
  // In the guest it keeps the name that it has.
  const guestId = image?.manifest.container.guestId ?? options.id;
  const plan = await planContainer(bundle, { ...containerOptions(options), guestId, memory: new Map() }, config.allow);
  mark("bundle read and checked");
  const {
    vm,
    accelerator,
    cgroupLimits,
    sizing,
    madeTemplate,
    notes,
    shown = plan.shown,
  } = image === null
    ? await planMachine(bundle.spec, config)
    : await (await import("../sandbox/restore.ts")).planRestore(bundle, plan, config, image, options.imagePath ?? "");
  mark(madeTemplate ? "template made" : "VM planned");
  return {
    accelerator,
    notes: [...plan.notes, ...notes],
    input: {
      ...containerInput(bundle, { ...plan, shown }, options, config),
      sandbox: {
        ...vm,
        id: options.id,
        hostname: guestHostname,
        netns: plan.netns,
        shares: shown.length > 0,
        mounts: shown,
        disks: plan.disks,
        // A container in the foreground is nobody's to delete once its supervisor was killed; any other is left as stopped, for its owner.
        remains: options.foreground && !options.keep ? deletion(options) : [],
      },
      cgroupLimits,
      sizing,
    },
  };
}

/** Likewise, a container in the sandbox of `neighbour`, whose supervisor this process is. */
export async function prepareJoining(
  bundle: Bundle,
  options: PrepareOptions,
  config: Config,
  neighbour: Supervisor,
): Promise<Pick<Prepared, "notes"> & { readonly input: ContainerInput }> {
  const { memory } = neighbour;
  const supervisor = identify(process.pid);
  if (supervisor === undefined) throw new HuskError("internal", "this process is not to be found");
  const plan = await planContainer(
    bundle,
    {
      ...containerOptions(options),
      memory,
      guestNamespace: namespacesOf(options.root, supervisor),
    },
    config.allow,
  );
  refuseBeyondMachine(bundle.spec);
  return { input: containerInput(bundle, plan, options, config), notes: plan.notes };
}

function containerOptions({ id, systemdCgroup, terminal, consoleSocket }: PrepareOptions): ContainerPlanOptions {
  // What an engine's terminal does with line feeds is the engine's business.
  return { id, systemdCgroup, size: terminal.size, plainNewlines: terminal.plainNewlines && consoleSocket === null };
}

function containerInput(bundle: Bundle, plan: ContainerPlan, options: PrepareOptions, config: Config): ContainerInput {
  if (plan.container.terminal && !options.foreground && options.consoleSocket === null) {
    throw new HuskError(
      "invalid-argument",
      "config.json: process.terminal: a container in the background needs --console-socket for its terminal",
    );
  }
  const { container, shown, disks, memory, standInRootfs, cgroup, hooks } = plan;
  return {
    root: options.root,
    record: firstRecord(options, bundle),
    container,
    shown,
    disks,
    memory,
    standInRootfs,
    cgroups: { hierarchies: findHierarchies(readFileSync("/proc/self/mountinfo", "utf8")), at: cgroup },
    hooks,
    resources: bundle.spec.linux?.resources ?? {},
    consoleSocket: options.consoleSocket,
    stopMs: config.deadlines.stopMs,
    callMs: config.deadlines.callMs,
    helper: helperPath(),
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

/** The command that deletes the container once its supervisor is dead. Another one of that id, which has another supervisor, it leaves alone. */
function deletion({ root, id }: PrepareOptions): string[] {
  return [process.execPath, join(installationFolder(), "dist/husk.js"), "--root", root, "gc", "--container", id];
}
