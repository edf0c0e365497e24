/**
 * The sandbox that a shim's tasks share: launched with the first of them, and ended once all of them have ended. Most have one task; a pod's has its pause
 * container and all others.
 */
import { mkdirSync, rmSync } from "node:fs";
import { join } from "node:path";
import type { Config } from "../config/config.ts";
import { HuskError } from "../errors.ts";
import type { CgroupHierarchy } from "../host/cgroups.ts";
import { takeCgroups } from "../host/sandbox-cgroups.ts";
import type { Mount, Spec } from "../oci/types.ts";
import { type ControlServer, serveControl } from "../sandbox/control.ts";
import { giveBackLedger } from "../sandbox/give-back.ts";
import { HostedSandbox, type LaunchSandbox } from "../sandbox/hosted-sandbox.ts";
import { watchMemoryKills } from "../sandbox/memory-kills.ts";
import type { ContainerPlan } from "../sandbox/plan-container.ts";
import { guestHostname, planVm, type VmPlan } from "../sandbox/plan-vm.ts";
import type { SandboxSpec } from "../sandbox/sandbox-plan.ts";
import { SharedSandbox } from "../sandbox/shared-sandbox.ts";
import type { StandIn } from "../sandbox/stand-in.ts";
import type { Logger } from "./logger.ts";
import { claimNetwork, type NetworkClaim } from "./network-claim.ts";
import { isPause } from "./pod-annotations.ts";

export interface PodOptions {
  /** The shim's run folder: mode 0700, its own. */
  readonly folder: string;
  /** Where the shim is dialled: `unix://PATH`. */
  readonly address: string;
  /** containerd's, in which the shim's containers are. */
  readonly namespace: string;
  readonly config: Config;
  readonly hierarchies: readonly CgroupHierarchy[];
  readonly helper: string;
  readonly log: Logger;
  /** A sandbox that waits for the first task, where there is one. */
  readonly waiting?: WaitingSandbox;
}

/** What a task needs of the sandbox; of the first one's, the sandbox is made. */
export interface SandboxNeeds extends Pick<ContainerPlan, "netns" | "shown" | "disks" | "cgroup"> {
  readonly id: string;
  /** Whose resources are the virtual machine's size. */
  readonly spec: Spec;
  /** Is told what has been reached. */
  readonly mark?: (phase: string) => void;
  /** How the virtual machine is planned that goes on from a checkpoint. */
  readonly planRestore?: () => Promise<VmPlan>;
}

/** A sandbox that has been launched already, for whom was not known yet. */
export interface WaitingSandbox {
  /** The plan of its machine. undefined where it is none for that task, which gets another one. Throws as `planVm`. */
  plan(needs: SandboxNeeds): Promise<VmPlan | undefined>;
  /** Makes it the task's. */
  readonly launch: LaunchSandbox;
  /** Ends it. */
  end(): Promise<void>;
}

/** What a task has of the sandbox. */
export interface Membership {
  readonly hosted: HostedSandbox;
  /** Whether the sandbox was launched for it: then its cgroup is the sandbox's. */
  readonly isLead: boolean;
}

export class Pod {
  readonly helper: string;
  readonly hierarchies: readonly CgroupHierarchy[];
  readonly config: Config;
  readonly log: Logger;
  readonly #folder: string;
  readonly #address: string;
  readonly #namespace: string;
  readonly #control: ControlServer;
  /** Those whose stand-ins may dial, each with a way to find one by its token. */
  readonly #standIns = new Set<(token: string) => StandIn | undefined>();
  /** See `ContainerPlan.memory`. */
  readonly memory = new Map<string, string>();
  /** What its containers have bound in: see `pod-files.ts`. */
  files: readonly Mount[] = [];
  readonly #memoryWatchers = new Map<string, (kills: number) => void>();
  /** The one that there is, or was: after the last of a pod's tasks others may come, in a sandbox of their own. */
  #shared: SharedSandbox | undefined;
  /** That the sandbox's network namespace is this shim's, for containers that join it. */
  #claim: Promise<NetworkClaim> | undefined;
  #waiting: WaitingSandbox | undefined;
  /** Of the first task, what it needed and where its sandbox came from. */
  #first: { readonly needs: SandboxNeeds; readonly hosted: HostedSandbox } | undefined;

  /** Makes the run folder, and serves the stand-ins. Throws `host`. */
  static async open(options: PodOptions): Promise<Pod> {
    mkdirSync(join(options.folder, "tasks"), { recursive: true, mode: 0o700 });
    const standIns = new Set<(token: string) => StandIn | undefined>();
    const control = await serveControl(join(options.folder, "sock"), {
      call: () => {
        throw new HuskError("unsupported", "a shim is called by ttrpc");
      },
      attach: ({ token, stream, pid }, socket) => {
        for (const find of standIns) {
          const standIn = find(token);
          if (standIn !== undefined) return standIn.attach(stream, socket, pid);
        }
        socket.destroy();
      },
    });
    return new Pod(options, control, standIns);
  }

  private constructor(options: PodOptions, control: ControlServer, standIns: Set<(token: string) => StandIn | undefined>) {
    this.helper = options.helper;
    this.hierarchies = options.hierarchies;
    this.config = options.config;
    this.log = options.log;
    this.#folder = options.folder;
    this.#address = options.address;
    this.#namespace = options.namespace;
    this.#control = control;
    this.#standIns = standIns;
    this.#waiting = options.waiting;
  }

  /** Of the first task, its specification and what its sandbox was launched from; undefined where there was none, or its sandbox never ran. */
  async first(): Promise<{ readonly spec: Spec; readonly sandbox: SandboxSpec } | undefined> {
    const first = this.#first;
    const isConnected = await first?.hosted.connect().then(
      () => true,
      () => false, // told to who waited for it
    );
    return first === undefined || isConnected !== true ? undefined : { spec: first.needs.spec, sandbox: first.hosted.sandbox.spec };
  }

  /** Where stand-ins dial. */
  get controlSocket(): string {
    return join(this.#folder, "sock");
  }

  /** Where files of the pod's can be, which go with the shim. */
  get filesFolder(): string {
    return join(this.#folder, "etc");
  }

  /** The ledger of a task: what it took of the host besides the sandbox. */
  taskLedger(id: string): string {
    return join(this.#folder, "tasks", `${id}.jsonl`);
  }

  /** Lets the stand-ins that `find` knows dial, until the returned function is called. */
  admit(find: (token: string) => StandIn | undefined): () => void {
    this.#standIns.add(find);
    return () => this.#standIns.delete(find);
  }

  /** Tells `onKills` the kills for want of memory in the container `id`, as they happen, until the returned function is called. */
  watchMemory(id: string, onKills: (kills: number) => void): () => void {
    this.#memoryWatchers.set(id, onKills);
    return () => this.#memoryWatchers.delete(id);
  }

  /**
   * Makes `member` one of those for whom the sandbox is there, launching it where there is none. What it needs shown is shown when this resolves,
   * though the guest may still be booting (`connected`). Throws `host`, `vmm` or `unsupported`.
   */
  async join(member: object, needs: SandboxNeeds): Promise<Membership> {
    await this.#shared?.over?.catch(() => {}); // told to who left
    const joined = this.#shared?.over === undefined ? this.#shared : undefined;
    const shared = joined ?? new SharedSandbox(member, this.#launch(needs), (hosted) => this.#end(hosted));
    this.#shared = shared;
    try {
      if (joined !== undefined && needs.planRestore !== undefined) {
        throw new HuskError("unsupported", "a checkpoint is a whole sandbox's: it cannot be restored into that of other containers");
      }
      return { hosted: await (joined?.join(member, needs) ?? shared.hosted), isLead: joined === undefined };
    } catch (error) {
      await shared.leave(member);
      throw error;
    }
  }

  /** Mirrors the network into the guest, once: engines put the interfaces there between Create and Start. */
  async mirrorNetwork(): Promise<void> {
    await this.#shared?.mirrorNetwork(this.#claim);
  }

  /** Lets the machine of a checkpoint go on, with the network namespace's links behind its devices. */
  async goOn(links: Parameters<SharedSandbox["goOn"]>[0]): Promise<void> {
    await this.#shared?.goOn(links, this.#claim);
  }

  /** The sandbox. Throws `wrong-state` where there is none. */
  get shared(): SharedSandbox {
    if (this.#shared === undefined) throw new HuskError("wrong-state", "the sandbox has ended");
    return this.#shared;
  }

  /** `next` takes the place of `member`. */
  replace(member: object, next: object): void {
    this.#shared?.replace(member, next);
  }

  /** `member` has ended: the sandbox ends with the last of them. Resolves when it has, where it does. */
  async leave(member: object): Promise<void> {
    await this.#shared?.leave(member);
  }

  /** Whether that sandbox is still there, for others. */
  async isLive(hosted: HostedSandbox): Promise<boolean> {
    const shared = this.#shared;
    return shared?.over === undefined && (await shared?.hosted.catch(() => undefined)) === hosted;
  }

  /** Ends whatever is left. */
  async close(): Promise<void> {
    await this.#shared?.close();
    await this.#waiting?.end();
    await this.#control.close();
  }

  get #ledger(): string {
    return join(this.#folder, "sandbox.jsonl");
  }

  async #end(hosted: HostedSandbox | undefined): Promise<void> {
    const claim = await this.#claim?.catch(() => undefined); // who started its first task was told
    this.#claim = undefined;
    claim?.release();
    await hosted?.close(this.config.deadlines.stopMs);
    await giveBackLedger(this.#ledger, this.helper);
  }

  async #launch(needs: SandboxNeeds): Promise<HostedSandbox> {
    const { id, spec, netns, disks, cgroup, planRestore, mark = () => {} } = needs;
    const waiting = this.#waiting;
    const waitingPlan = planRestore === undefined ? await waiting?.plan(needs) : undefined;
    // It goes on meanwhile, and is ended with everything else at the latest.
    if (waitingPlan === undefined) waiting?.end().catch((error: unknown) => this.log.warn(String(error)));
    const {
      vm,
      accelerator,
      cgroupLimits,
      sizing,
      madeTemplate,
      notes,
      shown = needs.shown,
    } = waitingPlan ?? (await (planRestore === undefined ? planVm(spec, this.config, this.#namespace) : planRestore()));
    mark(madeTemplate ? "template made" : "VM planned");
    for (const note of [accelerator.reason, ...notes]) this.log.info(note);
    rmSync(join(this.#folder, "agent.sock"), { force: true }); // of the sandbox before
    const cgroups = await takeCgroups({ hierarchies: this.hierarchies, at: cgroup }, cgroupLimits, () => this.#ledger, this.helper);
    const hosted = HostedSandbox.launch({
      ...(waiting === undefined || waitingPlan === undefined ? {} : { launch: waiting.launch }),
      sandbox: {
        ...vm,
        id,
        hostname: isPause(spec.annotations) && spec.hostname ? spec.hostname : guestHostname,
        netns,
        // Others that come later may show folders, but hardly beside one whose root is an image; and without, it can be checkpointed.
        shares: shown.length > 0 || disks.length === 0,
        mounts: shown,
        disks,
        remains: [],
        agentSocket: join(this.#folder, "agent.sock"),
        consoleLog: join(this.#folder, "console.log"),
      },
      ledger: () => this.#ledger,
      forwardSocket: join(this.#folder, "forward.sock"),
      cgroups,
      sizing,
      warn: (message) => this.log.warn(message),
      observer: {
        mark,
        fellBack: (message) => this.log.warn(message),
      },
    });
    this.#first ??= { needs, hosted };
    mark(waitingPlan === undefined ? "VM launched" : "sandbox taken that stood by");
    this.#claim = hosted.sandbox.netns().then((path) => claimNetwork(path, this.#address, this.#ledger));
    this.#claim.catch(() => {}); // whoever awaits it gets it
    hosted.connect().then(
      () => watchMemoryKills(hosted.sandbox.agent, (container, kills) => this.#memoryWatchers.get(container)?.(kills)),
      () => {}, // told to who waits for it
    );
    return hosted;
  }
}
