/** A task: one container of a sandbox, with its further processes, from Create to Delete. */
import { existsSync } from "node:fs";
import { join } from "node:path";
import { HuskError } from "../errors.ts";
import type { StatsContainerResponse } from "../gen/agent/v1/agent.ts";
import { runHooks } from "../host/hooks.ts";
import { noteInLedger } from "../host/ledger.ts";
import { type HostMount, mountAll } from "../host/mounts.ts";
import { startStandIn } from "../host/stand-in-process.ts";
import { type Bundle, loadBundle } from "../oci/bundle.ts";
import { encodeForAgent, guestProcess } from "../oci/guest-spec.ts";
import { type GuestNamespace, judgeProcess, judgeUpdate, refuseUnsupported, sharedTypes } from "../oci/support.ts";
import type { Namespace, Process, Resources } from "../oci/types.ts";
import { Container } from "../sandbox/container.ts";
import { settleLedger } from "../sandbox/give-back.ts";
import type { HostedSandbox } from "../sandbox/hosted-sandbox.ts";
import { type ContainerPlan, planContainer } from "../sandbox/plan-container.ts";
import { memberCgroups, withdraw } from "../sandbox/shared-sandbox.ts";
import type { StandIn } from "../sandbox/stand-in.ts";
import { ExecProcess } from "./exec-process.ts";
import { InitProcess } from "./init-process.ts";
import { PauseProcess } from "./pause-process.ts";
import type { Membership, Pod } from "./pod.ts";
import { isPause, podSpec } from "./pod-annotations.ts";
import { type StdioNames, TaskStdio } from "./stdio.ts";
import type { TaskProcess } from "./task-process.ts";

export interface TaskOptions {
  readonly namespace: string;
  readonly id: string;
  readonly bundle: string;
  /** To be stacked on the bundle's root file system; none where the engine has done that. */
  readonly rootfs: readonly HostMount[];
  readonly names: StdioNames;
  /** Whose namespaces those of a stand-in of this PID are in the guest, where it is one of the sandbox's. */
  readonly namespacesOf: (pid: number) => GuestNamespace | undefined;
  /** Told when a process of the container was killed for want of memory; before its end where it is the init. */
  readonly onMemoryKill: () => void;
}

export class Task {
  readonly id: string;
  readonly bundle: Bundle;
  readonly #pod: Pod;
  readonly #options: TaskOptions;
  readonly #plan: ContainerPlan;
  readonly #stdio: TaskStdio;
  readonly #execs = new Map<string, ExecProcess>();
  #membership: Membership | undefined;
  #container: Container | undefined;
  #init: TaskProcess | undefined;
  #standIn: StandIn | undefined;
  #standInEnded: Promise<void> = Promise.resolve();
  #dismiss: (() => void) | undefined;
  #forgetMemory: (() => void) | undefined;
  #memoryKills = 0;

  /** Makes the container; it waits for its start. Throws with everything given back. */
  static async create(pod: Pod, options: TaskOptions): Promise<Task> {
    const ledger = pod.taskLedger(options.id);
    let task: Task | undefined;
    if (!existsSync(options.bundle)) throw new HuskError("not-found", `bundle ${options.bundle} does not exist`);
    try {
      if (options.rootfs.length > 0) {
        const target = join(options.bundle, "rootfs");
        noteInLedger(ledger, { kind: "mount", path: target });
        await mountAll(pod.helper, target, options.rootfs);
      }
      const bundle = await loadBundle(options.bundle);
      const guestNamespace = ({ type, path = "" }: Namespace): GuestNamespace | undefined => {
        const pid = /^\/proc\/(\d+)\/ns\/\w+$/.exec(path)?.[1];
        const found = pid === undefined ? undefined : options.namespacesOf(Number(pid));
        return found === "sandbox" || sharedTypes.includes(type) ? found : undefined;
      };
      // A pause container is nothing in the guest: it has no memory there that others could share.
      const memory = isPause(bundle.spec.annotations) ? {} : { memory: pod.memory };
      const plan = await planContainer(bundle, { id: options.id, size: null, guestNamespace, ...memory }, pod.config.allow);
      for (const [host, guest] of plan.memory) pod.memory.set(host, guest);
      for (const note of plan.notes) pod.log.info(note);
      const stdio = await TaskStdio.open(options.names, options);
      task = new Task(pod, options, bundle, plan, stdio);
      await task.#create();
      return task;
    } catch (error) {
      if (task === undefined) await settleLedger(ledger, pod.helper);
      else await task.#discard();
      throw error;
    }
  }

  private constructor(pod: Pod, options: TaskOptions, bundle: Bundle, plan: ContainerPlan, stdio: TaskStdio) {
    this.id = options.id;
    this.bundle = bundle;
    this.#pod = pod;
    this.#options = options;
    this.#plan = plan;
    this.#stdio = stdio;
  }

  get init(): TaskProcess {
    if (this.#init === undefined) throw new HuskError("not-found", `container "${this.id}" was not created`);
    return this.#init;
  }

  /** Whose namespaces those of its stand-in are in the guest: a pause container stands for the sandbox itself. */
  get namespaces(): GuestNamespace {
    return isPause(this.bundle.spec.annotations) ? "sandbox" : { container: this.id };
  }

  get isPaused(): boolean {
    return this.#container?.status === "paused";
  }

  get execs(): readonly TaskProcess[] {
    return [...this.#execs.values()];
  }

  /** Its init (""), or one of its execs. Throws `not-found`. */
  process(execId: string): TaskProcess {
    const found = execId === "" ? this.init : this.#execs.get(execId);
    if (found === undefined) throw new HuskError("not-found", `process ${execId} of container "${this.id}" does not exist`);
    return found;
  }

  /** Runs init, or an exec. */
  async start(execId: string): Promise<void> {
    await this.process(execId).start();
    if (execId === "") await runHooks("poststart", this.#plan.hooks.poststart, this.#hookState("running"), this.bundle.path);
  }

  /** Makes an exec known; it is made in the guest when it starts. Throws `already-exists`, `wrong-state`, `unsupported`. */
  async exec(execId: string, process: Process, names: StdioNames): Promise<void> {
    const container = this.#guest("exec");
    if (this.#execs.has(execId)) throw new HuskError("already-exists", `process ${execId} of container "${this.id}" already exists`);
    if (this.init.status === "stopped") throw new HuskError("wrong-state", `cannot exec in a stopped container: ${this.id}`);
    for (const note of refuseUnsupported(judgeProcess(process), "the process")) this.#pod.log.info(note);
    const stdio = await TaskStdio.open(names, { namespace: this.#options.namespace, id: execId });
    const exec = new ExecProcess({
      id: execId,
      container,
      processJson: Buffer.from(encodeForAgent(guestProcess({ ...process, terminal: names.terminal }))).toString(),
      names,
      stdio,
      helper: this.#pod.helper,
      controlSocket: this.#pod.controlSocket,
    });
    this.#execs.set(execId, exec);
  }

  /** Forgets an exec that has ended, or never ran. */
  async deleteExec(execId: string): Promise<void> {
    await this.process(execId).release();
    this.#execs.delete(execId);
  }

  async pause(): Promise<void> {
    await this.#guest("pause").pause();
  }

  async resume(): Promise<void> {
    await this.#guest("resume").resume();
  }

  async update(resources: Resources): Promise<void> {
    for (const note of refuseUnsupported(judgeUpdate(resources), "the resources")) this.#pod.log.info(note);
    // A pause container has no limits of its own: the pod's are the sum of the others'.
    if (this.#container === undefined || this.#membership === undefined) return;
    await this.#membership.hosted.limits.change(this.id, this.#container, resources);
  }

  /** The guest's cgroup files; none for a pause container. */
  async stats(): Promise<StatsContainerResponse | undefined> {
    return this.#container?.stats();
  }

  /** Gives back everything. Init must have ended, or never been started. Throws `wrong-state`, `host`. */
  async delete(): Promise<void> {
    await this.init.release();
    for (const exec of this.#execs.values()) await exec.release();
    await this.#discard();
    await runHooks("poststop", this.#plan.hooks.poststop, this.#hookState("stopped"), this.bundle.path).catch((error: unknown) =>
      this.#pod.log.warn(`container "${this.id}": ${String(error)}`),
    );
  }

  async #create(): Promise<void> {
    const { pod, plan } = { pod: this.#pod, plan: this.#plan };
    const { spec } = this.bundle;
    const membership = await pod.join(this, { ...plan, id: this.id, spec: isPause(spec.annotations) ? podSpec(spec) : spec });
    this.#membership = membership;
    const { hosted } = membership;
    const place = { hierarchies: pod.hierarchies, at: plan.cgroup };
    const cgroups = await memberCgroups(membership, place, pod.taskLedger(this.id), pod.helper);
    if (isPause(this.bundle.spec.annotations)) {
      const [names, stdio] = [this.#options.names, this.#stdio];
      const sysctl = spec.linux?.sysctl ?? {};
      this.#init = await PauseProcess.create({ pod, hosted, rootfs: plan.standInRootfs, cgroups: cgroups.folders, names, stdio, sysctl });
      cgroups.joined();
      this.#leaveAtTheEnd();
      return;
    }
    const container = new Container(
      hosted.sandbox,
      plan.container,
      () => {},
      () => {},
    );
    this.#container = container;
    if (membership.isLead) hosted.limits.begin(this.id, this.#resources);
    this.#forgetMemory = pod.watchMemory(this.id, (kills) => this.#tellMemoryKills(kills));
    this.#standIn = container.init.standIn;
    this.#dismiss = pod.admit((token) => container.findStandIn(token));
    const { failed, ended } = startStandIn(pod.helper, pod.controlSocket, container.init.standIn.token);
    this.#standInEnded = ended;
    const prepare = async (): Promise<number> => {
      await container.placeStandIn({ netns: await hosted.sandbox.netns(), rootfs: plan.standInRootfs, cgroups: cgroups.folders }, null, []);
      cgroups.joined();
      const pid = await container.init.standIn.pid;
      await this.#runCreateHooks(pid);
      return pid;
    };
    const pid = await hosted.startWith(Promise.race([prepare(), failed]));
    if (!membership.isLead) await this.#admit(hosted);
    const joined = await container.create(this.#stdio.streams);
    this.#init = new InitProcess({
      container,
      joined,
      names: this.#options.names,
      stdio: this.#stdio,
      pid,
      beforeStart: () => pod.mirrorNetwork(),
      onEnd: ({ reason, oomKilled }) => {
        if (reason !== undefined) pod.log.warn(`container "${this.id}" ended: ${reason}`);
        if (oomKilled === true) this.#tellMemoryKills(Math.max(this.#memoryKills, 1));
      },
      killMs: pod.config.deadlines.stopMs,
    });
    this.#leaveAtTheEnd();
  }

  get #resources(): Resources {
    return this.bundle.spec.linux?.resources ?? {};
  }

  /** Has the machine, which was made for another container, grow where it is too small for this one too. */
  async #admit(hosted: HostedSandbox): Promise<void> {
    if (this.#resources.blockIO !== undefined) {
      this.#pod.log.info(
        "linux.resources.blockIO: without effect, since one virtual machine reads and writes for all of a pod's containers",
      );
    }
    await hosted.limits.admit(this.id, this.#resources);
  }

  /** `kills`: since the container began. They are told by two ways, of which either may be the first. */
  #tellMemoryKills(kills: number): void {
    if (kills <= this.#memoryKills) return;
    this.#memoryKills = kills;
    this.#options.onMemoryKill();
  }

  /** The sandbox is there for those that have not ended. */
  #leaveAtTheEnd(): void {
    this.init.exited.then(
      async () => {
        await this.#pod.leave(this).catch((error: unknown) => this.#pod.log.warn(String(error))); // Delete tries again, and says so
        await this.#releaseLimits();
      },
      () => {}, // it never ran: it is being deleted
    );
  }

  /** Gives back what the container alone needed, where the sandbox goes on. */
  async #releaseLimits(): Promise<void> {
    const hosted = this.#membership?.hosted;
    if (hosted !== undefined && (await this.#pod.isLive(hosted))) await hosted.limits.release(this.id);
  }

  async #runCreateHooks(pid: number): Promise<void> {
    const state = { ...this.#hookState("creating"), pid };
    for (const kind of ["prestart", "createRuntime"] as const) await runHooks(kind, this.#plan.hooks[kind], state, this.bundle.path);
  }

  #hookState(status: string): object {
    const { spec, path } = this.bundle;
    return {
      ociVersion: spec.ociVersion,
      id: this.id,
      status,
      pid: this.#init?.pid ?? 0,
      bundle: path,
      annotations: spec.annotations ?? {},
    };
  }

  /** What runs in the guest. Throws for a pause container, in which nothing does. */
  #guest(operation: string): Container {
    if (this.#container === undefined) throw new HuskError("wrong-state", `cannot ${operation}: the pod's pause container runs no program`);
    return this.#container;
  }

  /** Gives back what it took, whatever of it there is. */
  async #discard(): Promise<void> {
    const { callMs } = this.#pod.config.deadlines;
    this.#stdio.close();
    this.#standIn?.abandon(255);
    await this.#pod.leave(this);
    await this.#releaseLimits();
    const hosted = this.#membership?.hosted;
    if (hosted !== undefined && (await this.#pod.isLive(hosted))) await withdraw(hosted, this.#container, this.#plan.shown, callMs);
    for (const path of this.#plan.memory.keys()) this.#pod.memory.delete(path);
    this.#dismiss?.();
    this.#forgetMemory?.();
    await this.#standInEnded;
    await settleLedger(this.#pod.taskLedger(this.id), this.#pod.helper);
  }
}
