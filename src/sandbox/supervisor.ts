/**
 * The supervisor: one process, one sandbox, one container (so far), from the claim of its id to the last thing given back.
 *
 *     create ── claim the run folder ── cgroups ── VM launched ──┬── stand-in placed ── host hooks ──┬── container created
 *                                                                └── agent answers ─────────────────┘
 *     start ─── network mirrored ── program runs ── poststart hooks
 *     end ───── output out ── VM closed ── (foreground: poststop hooks, everything given back) ── stand-in let go
 *
 * Whatever fails, everything taken so far is given back before the error is reported.
 */
import type { Socket } from "node:net";
import { exitStatus, explain, HuskError } from "../errors.ts";
import { type CgroupHierarchy, type CgroupLimits, moveBeside } from "../host/cgroups.ts";
import { withDeadline } from "../host/deadline.ts";
import { deferred } from "../host/deferred.ts";
import { type HostHook, runHooks } from "../host/hooks.ts";
import { identify } from "../host/process-identity.ts";
import { demand } from "../oci/state.ts";
import { Container, type ContainerSpec, streamsOf } from "./container.ts";
import { type ControlServer, type Params, serveControl } from "./control.ts";
import { serveContainer } from "./control-calls.ts";
import { giveBackLedger } from "./give-back.ts";
import type { ProcessOutcome } from "./guest-process.ts";
import { HostedSandbox } from "./hosted-sandbox.ts";
import { changeLimits, type LimitChange } from "./limits.ts";
import { type ContainerRecord, type ContainerStatus, claimContainer, writeRecord } from "./record.ts";
import { type RunFolder, removeRunFolder } from "./run-folder.ts";
import type { SandboxSpec } from "./sandbox-plan.ts";
import type { Trace } from "./trace.ts";

/** What the supervisor is to make, all of it checked already. */
export interface SupervisorInput {
  readonly root: string;
  /** The record as it is to begin: status creating. */
  readonly record: ContainerRecord;
  readonly container: ContainerSpec;
  readonly sandbox: Omit<SandboxSpec, "cgroups" | "agentSocket" | "consoleLog">;
  /** What the stand-in's root is: the container's root file system, where that is a folder. */
  readonly standInRootfs: string | null;
  readonly consoleSocket: string | null;
  readonly hierarchies: readonly CgroupHierarchy[];
  /** Seen from each hierarchy's root. */
  readonly cgroupsPath: string;
  readonly cgroupLimits: CgroupLimits;
  readonly hooks: Readonly<Partial<Record<"prestart" | "createRuntime" | "poststart" | "poststop", readonly HostHook[]>>>;
  /** How long a guest may take to write back what it holds at the end. */
  readonly stopMs: number;
}

/** Who started the supervisor, and lends or forks the stand-in. */
export interface Starter {
  /** Lets the stand-in dial `socket` and show `token`. */
  readonly attach: (socket: string, token: string) => void;
  /** Takes what is worth a warning in the log. */
  readonly warn: (message: string) => void;
  /** Whether the caller itself is the stand-in: then what husk has to say is said by the stand-in, and by nobody else. */
  readonly isStandIn: boolean;
  /** Serves a call of `husk exec` whose front dialled the control socket: `request` is its first line. */
  readonly serveExec: (request: Params, front: Socket, container: Container) => void;
}

/** How a hook is told of the container (runtime-spec, runtime.md, "State"). */
function hookState(record: ContainerRecord): object {
  const { ociVersion, id, status, pid, bundle, annotations } = record;
  return { ociVersion, id, status, pid, bundle, annotations };
}

/** How long a stand-in may take to get to its place before it is given up, in milliseconds: it enters namespaces and writes its PID. */
const placeMs = 2_000;

/** SIGHUP, SIGINT, SIGQUIT, SIGKILL (the stand-in is gone) and SIGTERM. */
const endingSignals: ReadonlySet<number> = new Set([1, 2, 3, 9, 15]);

export class Supervisor {
  readonly #input: SupervisorInput;
  readonly #starter: Starter;
  readonly #trace: Trace;
  readonly #folder: RunFolder;
  #record: ContainerRecord;
  #hosted: HostedSandbox | undefined;
  #container: Container | undefined;
  #control: ControlServer | undefined;
  #ended: Promise<ProcessOutcome> | undefined;
  /** Rejects when the stand-in is asked to end before there is a container to be asked. */
  readonly #signalled = deferred<never>();
  #starting = false;
  /** Settles when the stand-in is in its place, or cannot get there. */
  #placed: Promise<void> = Promise.resolve();

  /**
   * Claims the id and makes the container. Throws, with everything given back, where anything fails, or `interrupted` rejects first. A stand-in that has
   * dialled by then is told.
   */
  static async create(input: SupervisorInput, starter: Starter, trace: Trace, interrupted: Promise<never>): Promise<Supervisor> {
    const supervisor = new Supervisor(input, starter, trace);
    try {
      await Promise.race([supervisor.#create(), interrupted, supervisor.#signalled.promise]);
      return supervisor;
    } catch (error) {
      await supervisor.abandon(error);
      throw error;
    }
  }

  /** Gives up: the VM is ended, everything given back, and the stand-in let go. */
  async abandon(error: unknown): Promise<void> {
    await this.#hosted?.close(0);
    await this.#ended?.catch(() => {});
    await this.remove();
    const standIn = this.#container?.init.standIn;
    if (this.#starter.isStandIn) standIn?.fail(explain(error), exitStatus(error));
    else standIn?.abandon(exitStatus(error));
  }

  private constructor(input: SupervisorInput, starter: Starter, trace: Trace) {
    this.#input = input;
    this.#starter = starter;
    this.#trace = trace;
    this.#record = input.record;
    this.#folder = claimContainer(input.root, input.record);
  }

  get record(): ContainerRecord {
    return this.#record;
  }

  /** Resolves when the container has stopped, its output is out and its VM is gone. */
  async ended(): Promise<ProcessOutcome> {
    if (this.#ended === undefined) throw new HuskError("internal", "the container was never created");
    return this.#ended;
  }

  /** Mirrors the network and runs the program. Throws `wrong-state` unless the container is created. */
  async start(): Promise<void> {
    const { hooks } = this.#input;
    const [hosted, container] = [this.#live(), this.#liveContainer()];
    demand("start", this.#record.id, this.#starting ? "running" : container.status);
    this.#starting = true;
    try {
      await hosted.mirrorNetwork();
      this.#trace.mark("network mirrored");
      await container.start();
      this.#trace.mark("program runs");
    } finally {
      this.#starting = false;
    }
    try {
      await runHooks("poststart", hooks.poststart, hookState(this.#record), this.#record.bundle);
    } catch (error) {
      await container.kill(9, false).catch(() => {}); // it may have ended; the hook's failure is what counts
      throw error;
    }
  }

  /** Forwards a signal to the container's init. */
  async kill(signal: number): Promise<void> {
    await this.#liveContainer().kill(signal, false);
  }

  /**
   * Gives back everything, the run folder last. The container must have stopped. Throws `host` where something could not be given back; the run folder
   * with its ledger stays then, for `husk delete` or `husk gc` to try again.
   */
  async remove(): Promise<void> {
    await this.#control?.close();
    await this.#freeStandIn();
    await giveBackLedger(this.#folder.ledger, this.#input.sandbox.programs.helper);
    removeRunFolder(this.#folder);
  }

  /**
   * In the foreground the stand-in outlives what it stood for, and has yet to say how that ended: it must not be in the cgroup when that is emptied. One that is
   * still on its way there is waited for.
   */
  async #freeStandIn(): Promise<void> {
    const standIn = this.#container?.init.standIn;
    const pid = standIn === undefined ? 0 : await Promise.race([standIn.pid, Promise.resolve(0)]);
    if (pid === 0) return; // there is none, or it has not dialled
    await withDeadline(this.#placed, placeMs, "the stand-in's placement").catch(() => {}); // where it is, is of no account if it is lost
    moveBeside(pid, this.#input.hierarchies);
  }

  /** Runs the poststop hooks. A hook that fails does not keep a container from being removed; the error says which did. */
  async runPoststop(): Promise<void> {
    await runHooks("poststop", this.#input.hooks.poststop, hookState(this.#record), this.#record.bundle);
  }

  /** Has init's stand-in write to its standard error. */
  say(text: string): void {
    this.#liveContainer().init.standIn.say(text);
  }

  /** Lets init's stand-in end as the container did; `message` is printed where it is in somebody's foreground. */
  releaseStandIn(outcome: ProcessOutcome, message: string | undefined): void {
    const standIn = this.#liveContainer().init.standIn;
    if (message === undefined) standIn.exit(outcome.end);
    else standIn.fail(message, "code" in outcome.end ? outcome.end.code : 128 + outcome.end.signal);
  }

  async #create(): Promise<void> {
    const { input, folder } = { input: this.#input, folder: this.#folder };
    const hosted = HostedSandbox.launch({
      ...input,
      sandbox: { ...input.sandbox, agentSocket: folder.agentSocket, consoleLog: folder.console },
      ledger: folder.ledger,
      warn: (message) => this.#starter.warn(message),
      observer: {
        mark: (phase) => this.#trace.mark(phase),
        templateFailed: (reason) => this.#starter.warn(`the template failed, so the VM boots: ${reason}`),
      },
    });
    this.#hosted = hosted;
    const { sandbox } = hosted;
    this.#trace.mark("VM launched");
    const onStatus = (status: ContainerStatus): void => this.#update({ status });
    const container = new Container(sandbox, input.container, onStatus, (signal) => this.#onEarlySignal(signal));
    this.#container = container;
    const update = (change: LimitChange) => changeLimits(container, { ...input.sandbox, ...input }, change);
    this.#control = await serveControl(folder.socket, {
      ...serveContainer(container, { start: () => this.start(), state: () => this.#record, update }),
      session: (request, front) => this.#starter.serveExec(request, front, container),
    });
    this.#starter.attach(folder.socket, container.init.standIn.token);
    const answers = hosted.connect().then(({ done }) => this.#trace.mark(`guest's agent answers, having set ${done.join(", ")}`));
    await Promise.all([hosted.startWith(this.#prepareHost(hosted, container)), answers]);
    const { ended, flushed } = await container.create(container.init.standIn.streams(streamsOf(this.#input.container.terminal)));
    this.#trace.mark("container created");
    this.#ended = this.#afterEnd(flushed.then(() => ended));
    this.#ended.catch(() => {}); // whoever calls `ended` gets it
  }

  /** The host's side of the container: its stand-in in place, and the hooks that want to meet it. */
  async #prepareHost({ sandbox, cgroups }: HostedSandbox, container: Container): Promise<void> {
    const { standInRootfs, consoleSocket, hooks } = this.#input;
    const streams = streamsOf(this.#input.container.terminal);
    const place = { netns: await sandbox.netns(), rootfs: standInRootfs, cgroups };
    this.#placed = container.placeStandIn(place, consoleSocket, streams);
    await this.#placed;
    const identity = identify(await container.init.standIn.pid);
    if (identity === undefined) throw new HuskError("host", "the stand-in process is gone");
    this.#update({ pid: identity.pid, pidStart: identity.start });
    this.#trace.mark("stand-in placed");
    for (const kind of ["prestart", "createRuntime"] as const) {
      await runHooks(kind, hooks[kind], hookState(this.#record), this.#record.bundle);
    }
  }

  /** After init's end: the VM is closed, and the record says how it went. */
  async #afterEnd(ended: Promise<ProcessOutcome>): Promise<ProcessOutcome> {
    const outcome = await ended;
    this.#liveContainer().abandonExecs();
    const vmDied = outcome.reason !== undefined && outcome.reason !== "out of memory";
    // A disk is left as after a shutdown, and not as after a power cut: without a journal to replay, it can be mounted read-only next time.
    if (!vmDied && this.#input.sandbox.disks.length > 0) await this.#liveContainer().unmount(this.#input.stopMs);
    await this.#live().close(vmDied ? 0 : this.#input.stopMs);
    await this.#control?.close();
    const { end, at, reason } = outcome;
    this.#update({
      status: "stopped",
      pid: 0,
      pidStart: 0,
      exit: { ...end, at: at.toISOString(), ...(reason === undefined ? {} : { reason }) },
    });
    return outcome;
  }

  #onEarlySignal(signal: number): void {
    if (endingSignals.has(signal)) this.#signalled.reject(new HuskError("host", `interrupted by signal ${signal}`));
  }

  /** Writes the record's change to disk. "stopped" is written once all is said of the end, and not before. */
  #update(change: Partial<ContainerRecord> & { status?: ContainerStatus }): void {
    if (change.status === "stopped" && change.exit === undefined) return;
    this.#record = { ...this.#record, ...change };
    writeRecord(this.#folder, this.#record);
  }

  #live(): HostedSandbox {
    if (this.#hosted === undefined) throw new HuskError("internal", "the sandbox was never launched");
    return this.#hosted;
  }

  #liveContainer(): Container {
    if (this.#container === undefined) throw new HuskError("internal", "the container was never made");
    return this.#container;
  }
}
