/**
 * The supervisor: one process, one sandbox. Each container has a Supervisor, from the claim of its id to the last thing given back; the sandbox is launched for
 * the first, others join it, and it ends with the last of them.
 *
 *     create ── claim the run folder ──┬ (first: cgroups ── VM launched) ┬──┬── stand-in placed ── host hooks ──┬── container created
 *                                      └ (others: shown to the guest) ───┘  └── agent answers ─────────────────┘   (beside it: createsBeside)
 *     start ─── network mirrored (once) ── program runs ── poststart hooks
 *     end ───── output out ──┬ (last: VM closed) ────────┬── record says so ── output's end told ── (foreground: poststop hooks, everything given back)
 *                            └ (others: guest gives back) ┘                                   └── stand-in let go
 *
 * Whatever fails, everything taken so far is given back before the error is reported.
 */
import type { Manifest } from "../checkpoint/manifest.ts";
import { exitStatus, explain, HuskError } from "../errors.ts";
import { demandFree, moveBeside } from "../host/cgroups.ts";
import { withDeadline } from "../host/deadline.ts";
import { deferred } from "../host/deferred.ts";
import { runHooks, runPoststop } from "../host/hooks.ts";
import { identify } from "../host/process-identity.ts";
import { type SandboxCgroups, takeCgroups } from "../host/sandbox-cgroups.ts";
import { demand } from "../oci/state.ts";
import type { CheckpointOptions } from "./checkpoint.ts";
import { Container, streamsOf } from "./container.ts";
import { type ControlHandlers, type ControlServer, serveControl } from "./control.ts";
import { serveContainer } from "./control-calls.ts";
import { awaitCreation } from "./creation.ts";
import { giveBackLedger } from "./give-back.ts";
import type { JoinedProcess, ProcessOutcome } from "./guest-process.ts";
import { HostedSandbox } from "./hosted-sandbox.ts";
import { type Household, stopping } from "./household.ts";
import { type ContainerRecord, type ContainerStatus, claimContainer, hookState, writeRecord } from "./record.ts";
import { forwardSocket, type RunFolder, removeRunFolder } from "./run-folder.ts";
import { foundHome, SandboxHome } from "./sandbox-home.ts";
import { memberCgroups, SharedSandbox, withdraw } from "./shared-sandbox.ts";
import { placeMs } from "./stand-in.ts";
import type { Starter } from "./starter.ts";
import { type ContainerInput, createsBeside, type SupervisorInput } from "./supervisor-input.ts";
import type { Trace } from "./trace.ts";

const SIGKILL = 9;
/** SIGHUP, SIGINT, SIGQUIT, SIGKILL (the stand-in is gone) and SIGTERM. */
const endingSignals: ReadonlySet<number> = new Set([1, 2, 3, SIGKILL, 15]);

export class Supervisor {
  readonly #input: ContainerInput;
  readonly #starter: Starter;
  readonly #trace: Trace;
  readonly #folder: RunFolder;
  readonly #household: Household;
  /** What the sandbox is launched from; undefined where it was there before. */
  readonly #lead: SupervisorInput | undefined;
  readonly #launched = deferred<HostedSandbox>();
  #record: ContainerRecord;
  /** Those of the sandbox, where it is launched for this container. */
  #cgroups: SandboxCgroups | undefined;
  #hosted: HostedSandbox | undefined;
  #container: Container | undefined;
  #control: ControlServer | undefined;
  #ended: Promise<ProcessOutcome> | undefined;
  /** Rejects when the stand-in is asked to end before there is a container to be asked. */
  readonly #signalled = deferred<never>();
  /** Resolves when nobody wants what is left of the container's output. */
  readonly #discarded = deferred<void>();
  /** Resolves when the record says that the container has stopped, or nothing will: who has read its output to the end finds it stopped. */
  readonly #told = deferred<void>();
  #creating: Promise<void> = Promise.resolve();
  #starting = false;
  #standInFree: Promise<void> | undefined;
  /** The network's mirroring, where it was begun before the start. */
  #mirrored: Promise<void> | undefined;
  /** Settles when the stand-in is in its place, or cannot get there. */
  #placed: Promise<void> = Promise.resolve();

  /**
   * Claims the id and makes the container. Throws, with everything given back, where anything fails, or `interrupted` rejects first. A stand-in that has
   * dialled by then is told.
   */
  static create(input: SupervisorInput, starter: Starter, trace: Trace, interrupted: Promise<never>): Promise<Supervisor> {
    return Supervisor.#make(new Supervisor(input, starter, trace, input), interrupted);
  }

  /** Likewise, in the sandbox of this one. Throws `wrong-state` as well, where that ends. */
  async join(input: ContainerInput, starter: Starter, trace: Trace, interrupted: Promise<never>): Promise<Supervisor> {
    if (!this.goesOn) throw new HuskError("wrong-state", stopping(this.#record.id));
    return Supervisor.#make(new Supervisor(input, starter, trace, this.#household), interrupted);
  }

  static async #make(supervisor: Supervisor, interrupted: Promise<never>): Promise<Supervisor> {
    try {
      // Outside of the race: what systemd has begun is not given back by half.
      if (supervisor.#lead !== undefined) supervisor.#cgroups = await supervisor.#takeCgroups(supervisor.#lead);
      supervisor.#creating = supervisor.#create();
      await Promise.race([supervisor.#creating, interrupted, supervisor.#signalled.promise]);
      return supervisor;
    } catch (error) {
      await supervisor.abandon(error);
      throw error;
    }
  }

  /** Gives up: the VM is ended, unless others need it, everything given back, the poststop hooks run, and the stand-in let go. */
  async abandon(error: unknown): Promise<void> {
    await this.#leave(true);
    await this.#ended?.catch(() => {});
    this.#told.resolve();
    await this.remove().catch((failure: unknown) => this.#starter.warn(explain(failure)));
    await this.runPoststop();
    const standIn = this.#container?.init.standIn;
    if (this.#starter.isStandIn) standIn?.fail(explain(error), exitStatus(error));
    else standIn?.abandon(exitStatus(error));
  }

  private constructor(input: ContainerInput, starter: Starter, trace: Trace, sandbox: SupervisorInput | Household) {
    this.#input = input;
    this.#starter = starter;
    this.#trace = trace;
    this.#record = input.record;
    if ("sandbox" in sandbox) {
      this.#lead = sandbox;
      this.#folder = claimContainer(input.root, input.record, foundHome);
      const end = (hosted: HostedSandbox | undefined, abruptly: boolean) => hosted?.close(abruptly ? 0 : input.stopMs) ?? Promise.resolve();
      const shared = new SharedSandbox(this, this.#launched.promise, end);
      this.#household = { shared, home: new SandboxHome(this.#folder), memory: new Map() };
    } else {
      this.#folder = claimContainer(input.root, input.record, (path) => sandbox.home.furnish(path));
      this.#household = sandbox;
      sandbox.home.add(this.#folder);
    }
    for (const [host, guest] of input.memory) this.#household.memory.set(host, guest);
  }

  get record(): ContainerRecord {
    return this.#record;
  }

  /** Throws before it is made. */
  get container(): Container {
    if (this.#container === undefined) throw new HuskError("internal", "the container was never made");
    return this.#container;
  }

  /** What a container that is to join the sandbox may share with those in it: see `ContainerPlan.memory`. */
  get memory(): ReadonlyMap<string, string> {
    return this.#household.memory;
  }

  /** Whether the sandbox goes on for others. */
  get goesOn(): boolean {
    return this.#household.shared.over === undefined;
  }

  /** Resolves when the container has stopped, its output is out and its VM is gone. */
  async ended(): Promise<ProcessOutcome> {
    if (this.#ended === undefined) throw new HuskError("internal", "the container was never created");
    return this.#ended;
  }

  /** Mirrors the network and runs the program. Throws `wrong-state` unless the container is created, and `hook`: it was killed, and is to be destroyed. */
  async start(): Promise<void> {
    const container = this.container;
    if (container.status === "creating") await awaitCreation(this.#creating);
    demand("start", this.#record.id, this.#starting ? "running" : container.status);
    this.#starting = true;
    try {
      await (this.#mirrored ?? this.#household.shared.mirrorNetwork());
      this.#trace.mark("network mirrored");
      await container.start();
      this.#trace.mark("program runs");
    } finally {
      this.#starting = false;
    }
    try {
      await runHooks("poststart", this.#input.hooks.poststart, hookState(this.#record), this.#record.bundle);
    } catch (error) {
      await container.kill(9, false).catch(() => {}); // it may have ended; the hook's failure is what counts
      throw error;
    }
  }

  /** Takes a checkpoint, and ends the container unless it is to go on; answers what is worth a line. Throws, with the container as it was. */
  async checkpoint(options: CheckpointOptions): Promise<readonly string[]> {
    const container = this.container;
    demand("checkpoint", this.#record.id, container.status);
    const { takeCheckpoint } = await import("./checkpoint.ts");
    const what = { sandbox: this.#household.shared, container: this.#input.container, paused: container.status === "paused" };
    const notes = await takeCheckpoint(what, options);
    // After the answer: the caller's connection ends with the container.
    if (!options.leaveRunning) setImmediate(() => void this.#hosted?.sandbox.abort("it was checkpointed"));
    return notes;
  }

  /** Forwards a signal to the container's init, or to all of its processes. */
  async kill(signal: number, all = false): Promise<void> {
    if (signal === SIGKILL) await this.container.killForSure(all, this.#input.stopMs);
    else await this.container.kill(signal, all);
  }

  /** Kills the container, and waits for nobody to take its output any more: it is to be deleted, and others live on. */
  async discard(): Promise<void> {
    this.#discarded.resolve();
    await this.kill(SIGKILL);
  }

  /** Gives back everything, the run folder last. The container must have stopped. Throws `host` where something stays, for others to try again. */
  async remove(): Promise<void> {
    await this.#control?.close();
    await this.#freeStandIn();
    try {
      for (const path of [this.#folder.ownLedger, this.#folder.ledger]) await giveBackLedger(path, this.#input.helper);
      removeRunFolder(this.#folder);
    } finally {
      if (this.#lead !== undefined) this.#hosted?.sandbox.nothingRemains(); // of what stays the caller hears
    }
  }

  /**
   * In the foreground the stand-in outlives what it stood for, and has yet to say how that ended: it must not be in the cgroup when that is emptied. One that is
   * still on its way there is waited for.
   */
  #freeStandIn(): Promise<void> {
    this.#standInFree ??= this.#moveStandIn();
    return this.#standInFree;
  }

  async #moveStandIn(): Promise<void> {
    const standIn = this.#container?.init.standIn;
    const pid = standIn === undefined ? 0 : await Promise.race([standIn.pid, Promise.resolve(0)]);
    if (pid === 0) return; // there is none, or it has not dialled
    await withDeadline(this.#placed, placeMs, "the stand-in's placement").catch(() => {}); // where it is, is of no account if it is lost
    moveBeside(pid, this.#input.cgroups.hierarchies);
  }

  /** Runs the poststop hooks; `warn` is told which failed. */
  async runPoststop(warn: (message: string) => void = this.#starter.warn): Promise<void> {
    await runPoststop(this.#input.hooks.poststop, hookState(this.#record, "stopped"), this.#record.bundle, warn);
  }

  /** Lets init's stand-in end as the container did; `message` is printed where it is in somebody's foreground. */
  releaseStandIn(outcome: ProcessOutcome, message: string | undefined): void {
    const standIn = this.container.init.standIn;
    const stays = this.goesOn;
    if (message === undefined) standIn.exit(outcome.end, stays);
    else standIn.fail(message, "code" in outcome.end ? outcome.end.code : 128 + outcome.end.signal, stays);
  }

  async #create(): Promise<void> {
    const [input, folder, { id }] = [this.#input, this.#folder, this.#input.container];
    const hosted = this.#lead === undefined ? await this.#household.shared.join(this, input) : this.#launch(this.#lead);
    this.#hosted = hosted;
    const onStatus = (status: ContainerStatus): void => this.#update({ status });
    const container = new Container(hosted.sandbox, input.container, onStatus, (signal) => {
      if (endingSignals.has(signal)) this.#signalled.reject(new HuskError("host", `interrupted by signal ${signal}`));
    });
    this.#container = container;
    if (this.#lead !== undefined) hosted.limits.begin(id, input.resources);
    const calls = serveContainer(container, {
      start: () => this.#starter.tellStart(() => this.start()),
      state: () => this.#record,
      update: (resources) => hosted.limits.change(id, container, resources),
      kill: (signal, all) => this.kill(signal, all),
      discard: () => this.discard(),
      checkpoint: (options) => this.checkpoint(options),
    });
    const session: ControlHandlers["session"] = (request, front) => this.#starter.serveSession(request, front, this, calls.call);
    this.#control = await serveControl(folder.socket, { ...calls, session });
    this.#starter.attach(folder.socket, container.init.standIn.token);
    const answers = hosted.connect().then(({ done }) => this.#trace.mark(`guest's agent answers, having set ${done.join(", ")}`));
    answers.catch(() => {}); // whoever comes to await it gets it
    const checkpoint = this.#lead?.sandbox.checkpoint;
    if (checkpoint !== undefined) return this.#goOn(hosted, container, checkpoint.manifest, answers);
    const prepared = Promise.all([hosted.startWith(this.#prepareHost(hosted, container)), answers]);
    prepared.catch(() => {}); // whoever comes to await it gets it
    await (this.#lead !== undefined && createsBeside(input) ? Promise.race([hosted.sandbox.awakened ?? answers, prepared]) : prepared);
    if (this.#lead === undefined) await hosted.limits.admit(id, input.resources);
    let startAfter: Promise<unknown> | undefined;
    if (this.#starter.startsAtOnce) {
      this.#mirrored = this.#household.shared.mirrorNetwork();
      startAfter = Promise.all([prepared, this.#mirrored]);
      startAfter.catch(() => {}); // `start` gets it
    }
    const created = container.create(container.standInStreams, { told: this.#told.promise, host: prepared, startAfter });
    await Promise.allSettled([prepared, created]); // neither goes on where the other has failed and all is given back
    this.#follow(await created);
    this.#trace.mark("container created");
  }

  /** The container of a checkpoint: it is in the guest already, and goes on. */
  async #goOn(hosted: HostedSandbox, container: Container, saved: Manifest, answers: Promise<void>): Promise<void> {
    await hosted.sandbox.whileStarting(this.#prepareHost(hosted, container));
    await Promise.all([this.#household.shared.goOn(saved.links), answers]);
    this.#trace.mark("network mirrored");
    this.#follow(await container.adopt(container.standInStreams, this.#told.promise));
    await container.goOn(saved.container.paused);
    this.#trace.mark("container goes on");
  }

  #follow({ ended, flushed }: JoinedProcess): void {
    this.#ended = this.#afterEnd(Promise.race([flushed, this.#discarded.promise]).then(() => ended)).finally(this.#told.resolve);
    this.#ended.catch(() => {}); // whoever calls `ended` gets it
  }

  async #takeCgroups({ cgroups, cgroupLimits, helper }: SupervisorInput): Promise<SandboxCgroups> {
    try {
      if (typeof cgroups.at === "string") demandFree(cgroups.hierarchies, cgroups.at);
      return await takeCgroups(cgroups, cgroupLimits, () => this.#household.home.ledger, helper);
    } catch (error) {
      this.#launched.reject(error as Error);
      throw error;
    }
  }

  #launch(input: SupervisorInput): HostedSandbox {
    const [folder, starter, cgroups] = [this.#folder, this.#starter, this.#cgroups];
    try {
      if (cgroups === undefined) throw new HuskError("internal", "the sandbox has no cgroups");
      const hosted = HostedSandbox.launch({
        cgroups,
        sandbox: { ...input.sandbox, agentSocket: folder.agentSocket, consoleLog: folder.console },
        ledger: () => this.#household.home.ledger,
        forwardSocket: forwardSocket(input.root),
        sizing: input.sizing,
        ...(input.launch === undefined ? {} : { launch: input.launch }),
        warn: (message) => starter.warn(message),
        observer: { mark: (phase) => this.#trace.mark(phase), fellBack: (message) => starter.warn(message) },
      });
      this.#launched.resolve(hosted);
      this.#trace.mark("VM launched");
      return hosted;
    } catch (error) {
      this.#launched.reject(error as Error);
      throw error;
    }
  }

  /** The host's side of the container: its stand-in in place, and the hooks that want to meet it. */
  async #prepareHost(hosted: HostedSandbox, container: Container): Promise<void> {
    const { standInRootfs, consoleSocket, hooks, helper } = this.#input;
    const streams = streamsOf(this.#input.container.terminal);
    const cgroups = await memberCgroups({ hosted, isLead: this.#lead !== undefined }, this.#input.cgroups, this.#folder.ownLedger, helper);
    const place = { netns: await hosted.sandbox.netns(), rootfs: standInRootfs, cgroups: cgroups.folders };
    this.#placed = container.placeStandIn(place, consoleSocket, streams);
    await this.#placed;
    cgroups.joined();
    const identity = identify(await container.init.standIn.pid);
    if (identity === undefined) throw new HuskError("host", "the stand-in process is gone");
    this.#update({ pid: identity.pid, pidStart: identity.start });
    this.#trace.mark("stand-in placed");
    for (const kind of ["prestart", "createRuntime"] as const)
      await runHooks(kind, hooks[kind], hookState(this.#record), this.#record.bundle);
  }

  /** After init's end: the VM is closed, unless others need it, and the record says how it went. */
  async #afterEnd(ended: Promise<ProcessOutcome>): Promise<ProcessOutcome> {
    const outcome = await ended;
    this.container.abandonExecs();
    const left = this.#leave(outcome.reason !== undefined && outcome.reason !== "out of memory");
    // It takes the kernel a while, in which the guest says goodbye.
    if (this.#record.foreground) setImmediate(() => void this.#freeStandIn().catch(() => {})); // `remove` gets it
    await left;
    await this.#control?.close();
    const { end, at, reason } = outcome;
    const exit = { ...end, at: at.toISOString(), ...(reason !== undefined && { reason }) };
    try {
      this.#update({ status: "stopped", pid: 0, pidStart: 0, ...(this.goesOn && { supervisor: null }), exit });
    } catch (error) {
      this.#starter.warn(explain(error)); // whoever waits for the end hears of it all the same
    }
    return outcome;
  }

  /** Parts from the sandbox. `abruptly`: there is no guest to part from, or it may end as by a power cut. */
  async #leave(abruptly: boolean): Promise<void> {
    await this.#household.shared.leave(this, { abruptly, part: (goesOn) => this.#part(goesOn, abruptly) });
  }

  async #part(goesOn: boolean, abruptly: boolean): Promise<void> {
    const { memory, disks, stopMs, shown, callMs } = this.#input;
    for (const path of memory.keys()) this.#household.memory.delete(path);
    // A disk is left as after a shutdown, and not as after a power cut: without a journal to replay, it can be mounted read-only next time.
    if (!goesOn && !abruptly && disks.some(({ readonly }) => !readonly)) await this.#container?.unmount(stopMs);
    if (!goesOn) return;
    this.#household.home.leave(this.#folder);
    this.#container?.init.standIn.giveUp(); // whoever has asked for the container may be gone
    await this.#creating.catch(() => {}); // whoever waits for it was told, or is
    if (this.#hosted === undefined) return;
    await this.#hosted.limits.release(this.#input.container.id);
    await withdraw(this.#hosted, this.#container, shown, callMs).catch((error: unknown) => this.#starter.warn(explain(error)));
  }

  /** Writes the record's change to disk. "stopped" is written once all is said of the end, and not before. */
  #update(change: Partial<ContainerRecord> & { status?: ContainerStatus }): void {
    if (change.status === "stopped" && change.exit === undefined) return;
    this.#record = { ...this.#record, ...change };
    writeRecord(this.#folder, this.#record);
  }
}
