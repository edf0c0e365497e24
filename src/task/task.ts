/** A task: one container of a sandbox, with its further processes, from Create to Delete. */
import { existsSync } from "node:fs";
import { join } from "node:path";
import type { Image } from "../checkpoint/image.ts";
import { HuskError } from "../errors.ts";
import type { StatsContainerResponse } from "../gen/agent/v1/agent.ts";
import { deferred } from "../host/deferred.ts";
import { runHooks, runPoststop } from "../host/hooks.ts";
import { noteInLedger } from "../host/ledger.ts";
import { type HostMount, mountAll } from "../host/mounts.ts";
import { startStandIn } from "../host/stand-in-process.ts";
import { type Bundle, loadBundle } from "../oci/bundle.ts";
import { encodeForAgent, guestProcess } from "../oci/guest-spec.ts";
import { demand } from "../oci/state.ts";
import { type GuestNamespace, judgeProcess, judgeUpdate, refuseUnsupported } from "../oci/support.ts";
import type { Namespace, Process, Resources } from "../oci/types.ts";
import { Container } from "../sandbox/container.ts";
import { settleLedger } from "../sandbox/give-back.ts";
import type { JoinedProcess, ProcessOutcome } from "../sandbox/guest-process.ts";
import type { HostedSandbox } from "../sandbox/hosted-sandbox.ts";
import { type ContainerPlan, planContainer } from "../sandbox/plan-container.ts";
import type { VmPlan } from "../sandbox/plan-vm.ts";
import { memberCgroups, withdraw } from "../sandbox/shared-sandbox.ts";
import type { StandIn } from "../sandbox/stand-in.ts";
import { ExecProcess } from "./exec-process.ts";
import { guestNamespaceOf, type NamespacesOf } from "./guest-namespaces.ts";
import { InitProcess, type InitProcessOptions } from "./init-process.ts";
import { PauseProcess } from "./pause-process.ts";
import type { Membership, Pod } from "./pod.ts";
import { isPause, podSpec } from "./pod-annotations.ts";
import { withPodFiles } from "./pod-files.ts";
import { type StdioNames, TaskStdio } from "./stdio.ts";
import type { TaskProcess } from "./task-process.ts";

export interface TaskOptions {
  readonly namespace: string;
  readonly id: string;
  readonly bundle: string;
  /** To be stacked on the bundle's root file system; none where the engine has done that. */
  readonly rootfs: readonly HostMount[];
  readonly names: StdioNames;
  /** The folder of the checkpoint that it goes on from; "": it begins. */
  readonly checkpoint: string;
  /** Is told what has been reached. */
  readonly mark: (phase: string) => void;
  /** Whether systemd makes the cgroup; undefined: where cgroupsPath has the form for that. */
  readonly systemdCgroup: true | undefined;
  readonly namespacesOf: NamespacesOf;
  /** Told when a process of the container was killed for want of memory; before its end where it is the init. */
  readonly onMemoryKill: () => void;
}

/** How a container gets to run. */
type WayToRun = Pick<InitProcessOptions, "joined" | "beforeStart" | "start">;

export class Task {
  readonly id: string;
  readonly bundle: Bundle;
  readonly #pod: Pod;
  readonly #options: TaskOptions;
  readonly #plan: ContainerPlan;
  readonly #stdio: TaskStdio;
  readonly #image: Image | undefined;
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
      const bundle = withPodFiles(await loadBundle(options.bundle), pod.files);
      const guestNamespace = (entry: Namespace): GuestNamespace | undefined => guestNamespaceOf(entry, options.namespacesOf);
      const image = options.checkpoint === "" ? undefined : (await import("../checkpoint/image.ts")).openImage(options.checkpoint);
      const guestId = image?.manifest.container.guestId ?? options.id;
      // A pause container is nothing in the guest: it has no memory there that others could share.
      const memory = isPause(bundle.spec.annotations) ? {} : { memory: pod.memory };
      const systemd = options.systemdCgroup === undefined ? {} : { systemdCgroup: options.systemdCgroup };
      const planned = { id: options.id, guestId, size: null, guestNamespace, ...systemd, ...memory };
      const plan = await planContainer(bundle, planned, pod.config.allow);
      for (const [host, guest] of plan.memory) pod.memory.set(host, guest);
      for (const note of plan.notes) pod.log.info(note);
      options.mark("bundle read and checked");
      const stdio = await TaskStdio.open(options.names, options);
      task = new Task(pod, options, bundle, plan, stdio, image);
      await task.#create();
      return task;
    } catch (error) {
      if (task === undefined) await settleLedger(ledger, pod.helper);
      else {
        await task.#discard();
        await task.#runPoststop();
      }
      throw error;
    }
  }

  private constructor(pod: Pod, options: TaskOptions, bundle: Bundle, plan: ContainerPlan, stdio: TaskStdio, image: Image | undefined) {
    this.#image = image;
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
    if (execId !== "" || this.#image !== undefined) return;
    try {
      await runHooks("poststart", this.#plan.hooks.poststart, this.#hookState("running"), this.bundle.path);
    } catch (error) {
      await this.init.kill(9, true).catch(() => {}); // it may have ended; the hook's failure is what counts
      throw error;
    }
  }

  /** Makes an exec known; it is made in the guest when it starts. Throws `already-exists`, `wrong-state`, `unsupported`. */
  async exec(execId: string, process: Process, names: StdioNames): Promise<void> {
    const container = this.#guest("exec");
    if (this.#execs.has(execId)) throw new HuskError("already-exists", `process ${execId} of container "${this.id}" already exists`);
    if (this.init.status === "stopped") throw new HuskError("wrong-state", `cannot exec in a stopped container: ${this.id}`);
    // Said here: the container's own words name a flag of the command line, which a shim has not.
    if (container.status === "paused") throw new HuskError("wrong-state", `cannot exec in a paused container: ${this.id}`);
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

  /** Takes a checkpoint of the whole sandbox into `folder`; `exit`: the container ends then. Throws, with the container as it was. */
  async checkpoint(folder: string, exit: boolean): Promise<void> {
    const container = this.#guest("checkpoint");
    demand("checkpoint", this.id, this.init.status === "running" ? container.status : this.init.status);
    const { takeCheckpoint } = await import("../sandbox/checkpoint.ts");
    const { shared } = this.#pod;
    const what = { sandbox: shared, container: this.#plan.container, paused: container.status === "paused" };
    for (const note of await takeCheckpoint(what, { folder, leaveRunning: !exit })) this.#pod.log.warn(note);
    if (!exit) return;
    await (await shared.hosted).sandbox.abort("it was checkpointed");
    await this.init.exited;
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
    await this.#runPoststop();
  }

  async #create(): Promise<void> {
    const { pod, plan } = { pod: this.#pod, plan: this.#plan };
    const { spec } = this.bundle;
    const { mark } = this.#options;
    const needs = { ...plan, id: this.id, mark, spec: isPause(spec.annotations) ? podSpec(spec) : spec };
    const membership = await pod.join(
      this,
      this.#image === undefined ? needs : { ...needs, planRestore: await this.#planRestore(this.#image) },
    );
    this.#membership = membership;
    const { hosted } = membership;
    const place = { hierarchies: pod.hierarchies, at: plan.cgroup };
    const cgroups = await memberCgroups(membership, place, pod.taskLedger(this.id), pod.helper);
    if (isPause(this.bundle.spec.annotations)) {
      const streams = { names: this.#options.names, stdio: this.#stdio };
      const own = { title: plan.container.title, sysctl: spec.linux?.sysctl ?? {} };
      this.#init = await PauseProcess.create({ pod, hosted, rootfs: plan.standInRootfs, cgroups: cgroups.folders, ...streams, ...own });
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
    const prepared = Promise.race([prepare(), failed]);
    const image = this.#image;
    const pid = await (image === undefined ? hosted.startWith(prepared) : hosted.sandbox.whileStarting(prepared));
    mark("guest's agent answers, stand-in placed");
    if (!membership.isLead) await this.#admit(hosted);
    const { joined, ...way } = image === undefined ? await this.#begin(container) : this.#continue(hosted, container, image);
    mark("container created");
    this.#init = new InitProcess({
      container,
      joined,
      names: this.#options.names,
      stdio: this.#stdio,
      pid,
      standInEnded: this.#standInEnded,
      ...way,
      endSandbox: (reason) => hosted.sandbox.abort(reason),
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

  /** Makes the container in the guest, to be started. */
  async #begin(container: Container): Promise<WayToRun> {
    const joined = await container.create(this.#stdio.streams);
    return { joined, beforeStart: () => this.#pod.mirrorNetwork(), start: () => container.start() };
  }

  /** The machine waits until the start, since engines bring the network in between; the container is in its memory. */
  #continue(hosted: HostedSandbox, container: Container, { manifest }: Image): WayToRun {
    const joining = deferred<JoinedProcess>();
    const died = hosted.sandbox.died.then((reason): ProcessOutcome => ({ end: { signal: 9 }, at: new Date(), reason }));
    const ended = Promise.race([joining.promise.then((joined) => joined.ended), died]);
    const flushed = Promise.race([joining.promise.then((joined) => joined.flushed), died.then(() => {})]);
    return {
      joined: { ended, flushed },
      beforeStart: async () => {
        await this.#pod.goOn(manifest.links);
        joining.resolve(await container.adopt(this.#stdio.streams));
      },
      start: () => container.goOn(manifest.container.paused),
    };
  }

  async #planRestore(image: Image): Promise<() => Promise<VmPlan>> {
    const { planRestore } = await import("../sandbox/restore.ts");
    return () => planRestore(this.bundle, this.#plan, this.#pod.config, image, this.#options.checkpoint);
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

  async #runPoststop(): Promise<void> {
    const warn = (message: string): void => this.#pod.log.warn(`container "${this.id}": ${message}`);
    await runPoststop(this.#plan.hooks.poststop, { ...this.#hookState("stopped"), pid: 0 }, this.bundle.path, warn);
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
