/** A container in a sandbox: its states, its processes, and what is asked of it while it lives. */
import { randomBytes } from "node:crypto";
import { Writable } from "node:stream";
import { execFailed, explain, HuskError } from "../errors.ts";
import type { ListProcessesResponse, StatsContainerResponse, Storage } from "../gen/agent/v1/agent.ts";
import { encodeForAgent, guestResources } from "../oci/guest-spec.ts";
import { become, demand } from "../oci/state.ts";
import type { Resources } from "../oci/types.ts";
import { GuestProcess, type JoinedProcess, type ProcessOutcome, type ProcessStreams } from "./guest-process.ts";
import { guestStdio } from "./guest-stdio.ts";
import { moreMemoryKills } from "./memory-kills.ts";
import type { ContainerStatus } from "./record.ts";
import type { Sandbox } from "./sandbox.ts";
import { type Placement, type StandIn, type StreamName, titleOf, type WindowSize } from "./stand-in.ts";

/** What the guest is told to make. */
export interface ContainerSpec {
  readonly id: string;
  /** What the guest knows it by: another, where it was restored from another one's checkpoint. */
  readonly guestId: string;
  /** The runtime spec in the guest's words, as JSON. */
  readonly specJson: string;
  readonly rootfs: Storage;
  readonly storages: readonly Storage[];
  readonly terminal: boolean;
  /** Whether the terminal leaves line feeds as they are. */
  readonly plainNewlines: boolean;
  readonly consoleSize: WindowSize | null;
  /** What ps shows of its stand-in: init's words. */
  readonly title: readonly string[];
  /** What the host's side of it is called. */
  readonly names: NonNullable<Placement["names"]>;
}

/** Where stand-ins of this container are put. */
export type StandInPlace = Pick<Placement, "netns" | "rootfs" | "cgroups">;

/** A further process, as `husk exec` asks for it. */
export interface ExecSpec {
  /** The spec's process object, as JSON. */
  readonly processJson: string;
  readonly terminal: boolean;
  readonly plainNewlines: boolean;
  readonly consoleSocket: string | null;
  readonly size: WindowSize | null;
  readonly ignorePaused: boolean;
  /** Below the container's, "/" being that itself; "": wherever its processes are. */
  readonly cgroup: string;
}

/** What goes on while a container is made. */
export interface CreateOptions {
  /** As GuestProcess has it. */
  readonly told?: Promise<void>;
  /** The host's side of the container: it is not said to be created before. */
  readonly host?: Promise<unknown>;
  /** Once it resolves, the guest is told to run the program as soon as the container is made: `start` then waits for that. */
  readonly startAfter?: Promise<unknown> | undefined;
}

/** A further process: what it is, and which of its streams somebody has. */
export interface ProcessSpec {
  /** The spec's process object, as JSON. */
  readonly processJson: string;
  readonly terminal: boolean;
  /** Whether the terminal leaves line feeds as they are. */
  readonly plainNewlines: boolean;
  readonly size: WindowSize | null;
  readonly ignorePaused: boolean;
  /** Below the container's, "/" being that itself; "": wherever its processes are. */
  readonly cgroup: string;
  readonly streams: readonly StreamName[];
}

interface Exec {
  readonly process: GuestProcess;
  /** Resolves to the stand-in's PID once the program runs. */
  readonly running: Promise<number>;
}

/** The streams of a process whose stand-in carries them all: a terminal has one output. */
export function streamsOf(terminal: boolean): StreamName[] {
  return terminal ? ["stdin", "stdout"] : ["stdin", "stdout", "stderr"];
}

export class Container {
  readonly init: GuestProcess;
  readonly #sandbox: Sandbox;
  readonly #spec: ContainerSpec;
  readonly #guestId: string;
  readonly #onStatus: (status: ContainerStatus) => void;
  readonly #processes = new Map<string, GuestProcess>();
  readonly #execs = new Map<string, Exec>();
  #status: ContainerStatus = "creating";
  /** The start, where the guest was told of it before it had made the container. */
  #startedAhead: Promise<void> | undefined;
  #place: StandInPlace = { netns: null, rootfs: null, cgroups: [] };
  /** Of the stand-in's terminal, where it has one. */
  #size: WindowSize | null = null;
  #execPrefix = "exec-";
  #nextExec = 1;

  /**
   * `onStatus` is told each change of the state, before the caller that caused it gets its answer; `onEarlySignal`, signals that reach init's stand-in
   * before there is an init.
   */
  constructor(sandbox: Sandbox, spec: ContainerSpec, onStatus: (status: ContainerStatus) => void, onEarlySignal: (signal: number) => void) {
    this.#sandbox = sandbox;
    this.#spec = spec;
    this.#onStatus = onStatus;
    this.#guestId = spec.guestId;
    this.init = new GuestProcess(sandbox, { containerId: this.#guestId, processId: "" }, onEarlySignal);
  }

  get status(): ContainerStatus {
    return this.#status;
  }

  /** The streams that init's stand-in carries. */
  get standInStreams(): ProcessStreams {
    return this.init.standIn.streams(streamsOf(this.#spec.terminal));
  }

  /** The stand-in that dials with this token, of init or of an exec. */
  findStandIn(token: string): StandIn | undefined {
    return [this.init, ...this.#processes.values()].map(({ standIn }) => standIn).find((standIn) => standIn.token === token);
  }

  /**
   * Sends init's stand-in to its place; those of further processes will follow it there. `streams`: those that it carries. Its dialling is the caller's
   * business.
   */
  async placeStandIn(place: StandInPlace, consoleSocket: string | null, streams: readonly StreamName[]): Promise<void> {
    this.#place = place;
    const { terminal, consoleSize, names } = this.#spec;
    this.#size = await this.init.standIn.place({
      ...place,
      beside: null,
      names,
      terminal: terminal && streams.length > 0,
      consoleSocket,
      size: consoleSize,
      streams,
      title: this.#spec.title,
    });
  }

  /**
   * Makes the container in the guest, and joins `streams` to its init; the container is stopped as soon as that has ended. Throws the guest's errors,
   * `program-not-found` among them, and as `host`.
   */
  async create(streams: ProcessStreams, { told, host, startAfter }: CreateOptions = {}): Promise<JoinedProcess> {
    const { specJson, rootfs, storages, terminal, plainNewlines, consoleSize } = this.#spec;
    this.#sandbox.occupancy.begins();
    const made = this.#sandbox.agent.call("createContainer", {
      containerId: this.#guestId,
      specJson: Buffer.from(specJson),
      rootfs,
      storages: [...storages],
      stdio: guestStdio({ terminal, plainNewlines, streams: Object.keys(streams), size: consoleSize }),
    });
    const notMade = new AbortController();
    made.catch((error: unknown) => notMade.abort(error));
    this.#startedAhead = startAfter?.then(() => this.init.start(notMade.signal));
    this.#startedAhead?.catch(() => {}); // `start` gets it, unless the container could not be made
    await made;
    await host;
    this.#setStatus("created");
    return this.#stopsWith(this.init.join(streams, told));
  }

  #stopsWith({ ended, flushed }: JoinedProcess): JoinedProcess {
    const stopped = ended.then((outcome) => {
      this.#setStatus("stopped");
      this.#sandbox.occupancy.hasEnded(outcome.isLast ?? false);
      return outcome;
    });
    return { ended: stopped, flushed };
  }

  /** Lets a process run as if its streams were /dev/null, to its end. */
  async #disown(process: GuestProcess): Promise<void> {
    const nowhere = (): Promise<Writable> => Promise.resolve(new Writable({ write: (_chunk, _encoding, done) => done() }));
    await process.follow({ stdout: nowhere(), stderr: nowhere() });
    await this.forgetProcess(process);
  }

  /** Runs the container's program. Throws `wrong-state` unless it is created. */
  async start(): Promise<void> {
    demand("start", this.#spec.id, this.#status);
    await (this.#startedAhead ?? this.init.start());
    // A program that ended at once has had its end reported before this answer.
    if (this.#status === "created") this.#setStatus("running");
  }

  /**
   * Joins `streams` to the init of a container that is in the guest already, which has been restored from a checkpoint and stands still until `goOn`. What was
   * executed in it besides goes on with it, and nobody hears of it.
   */
  async adopt(streams: ProcessStreams, told?: Promise<void>): Promise<JoinedProcess> {
    this.#sandbox.occupancy.begins();
    this.#setStatus("created");
    this.#execPrefix = `exec-${randomBytes(4).toString("hex")}-`; // the guest may remember others
    const joined = this.#stopsWith(this.init.join(streams, told));
    const { processes } = await this.#sandbox.agent.call("listProcesses", { containerId: this.#guestId });
    const others = new Set(processes.map(({ processId }) => processId));
    for (const processId of others) {
      if (processId !== "") void this.#disown(new GuestProcess(this.#sandbox, { containerId: this.#guestId, processId }));
    }
    if (this.#size !== null && this.#spec.terminal) await this.init.resize(this.#size);
    return joined;
  }

  /** Lets the processes of an adopted container go on. */
  async goOn(wasPaused: boolean): Promise<void> {
    await this.#sandbox.agent.call("finishCheckpoint", {});
    if (wasPaused) await this.#sandbox.agent.call("resumeContainer", { containerId: this.#guestId });
    this.init.goOn();
    if (this.#status === "created") this.#setStatus("running");
  }

  /** Throws `wrong-state` where nothing runs. `deadlineMs`: where it is not that of every call. */
  async kill(signal: number, all: boolean, deadlineMs?: number): Promise<void> {
    demand("kill", this.#spec.id, this.#status);
    await this.init.signal(signal, all, deadlineMs);
  }

  /** Sends SIGKILL, which nobody can ignore, nor a guest that stands still: one that does not answer within `withinMs` is ended, with all that is in it. */
  async killForSure(all: boolean, withinMs: number): Promise<void> {
    try {
      await this.kill(9, all, withinMs);
    } catch (error) {
      if (!(error instanceof HuskError && error.code === "deadline")) throw error;
      await this.#sandbox.abort(`the guest did not kill the container within ${withinMs} ms`);
    }
  }

  async pause(): Promise<void> {
    demand("pause", this.#spec.id, this.#status);
    await this.#sandbox.agent.call("pauseContainer", { containerId: this.#guestId });
    this.#setStatus("paused");
  }

  async resume(): Promise<void> {
    demand("resume", this.#spec.id, this.#status);
    await this.#sandbox.agent.call("resumeContainer", { containerId: this.#guestId });
    this.#setStatus("running");
  }

  /** The PIDs on the host of the stand-ins that have dialled: init's and those of execs. */
  async standIns(): Promise<number[]> {
    const pids = [this.init, ...this.#processes.values()].map(
      ({ standIn }) => Promise.race([standIn.pid, Promise.resolve(0)]).catch(() => 0), // one that is gone is none
    );
    return (await Promise.all(pids)).filter((pid) => pid !== 0);
  }

  async processes(): Promise<ListProcessesResponse> {
    demand("ps", this.#spec.id, this.#status);
    return this.#sandbox.agent.call("listProcesses", { containerId: this.#guestId });
  }

  /** See memory-kills.ts. */
  moreMemoryKills(after: number, signal: AbortSignal): Promise<number> {
    return moreMemoryKills(this.#sandbox.agent, this.#guestId, after, signal);
  }

  stats(): Promise<StatsContainerResponse> {
    return this.#sandbox.agent.call("statsContainer", { containerId: this.#guestId });
  }

  /** Changes the container's limits in the guest: the fields that are there alone. */
  async update(resources: Resources): Promise<void> {
    demand("update", this.#spec.id, this.#status);
    await this.#sandbox.agent.call("updateContainer", {
      containerId: this.#guestId,
      resourcesJson: Buffer.from(encodeForAgent(guestResources(resources))),
    });
  }

  /**
   * Makes a further process in the guest, which waits for its start. `processId`: unique in the container. Throws `wrong-state`, and the guest's errors.
   */
  async addProcess(processId: string, spec: ProcessSpec): Promise<GuestProcess> {
    this.#demandExec(spec);
    const process = new GuestProcess(this.#sandbox, { containerId: this.#guestId, processId });
    await this.#createProcess(process, spec);
    this.#processes.set(processId, process);
    return process;
  }

  /** Sends a further process's stand-in beside init's. Resolves to its terminal's size where it has one. */
  async placeProcess(
    process: GuestProcess,
    placement: Omit<Placement, keyof StandInPlace | "beside" | "names">,
  ): Promise<WindowSize | null> {
    return process.standIn.place({ ...this.#place, beside: await this.init.standIn.pid, ...placement });
  }

  /** Lets the agent forget an ended process, or one that never ran. A guest that is gone has forgotten everything. */
  async forgetProcess({ target }: GuestProcess): Promise<void> {
    this.#processes.delete(target.processId);
    await this.#sandbox.agent.call("deleteProcess", target).catch(() => {});
  }

  /**
   * Makes a further process, which runs as soon as a stand-in has dialled with the token in the answer; what keeps it from running is told to the stand-in.
   * `callerGone`: where it aborts before a stand-in has dialled, none will. Throws `wrong-state`.
   */
  exec(exec: ExecSpec, callerGone: AbortSignal): { readonly token: string; readonly execId: string } {
    this.#demandExec(exec);
    const execId = `${this.#execPrefix}${this.#nextExec++}`;
    const process = new GuestProcess(this.#sandbox, { containerId: this.#guestId, processId: execId });
    this.#processes.set(execId, process);
    const onGone = (): void => process.standIn.giveUp();
    if (callerGone.aborted) onGone();
    callerGone.addEventListener("abort", onGone);
    const running = this.#runExec(process, exec).finally(() => callerGone.removeEventListener("abort", onGone));
    running.catch(() => {}); // told to the stand-in, and to whoever asks by execStarted
    this.#execs.set(execId, { process, running });
    return { token: process.standIn.token, execId };
  }

  /** Resolves to the stand-in's PID once the exec's program runs. Throws what kept it from running. */
  execStarted(execId: string): Promise<number> {
    const exec = this.#execs.get(execId);
    if (exec === undefined) throw new HuskError("not-found", `container "${this.#spec.id}" has no process ${execId}`);
    return exec.running;
  }

  /**
   * Has the guest end what is left of the container, and unmount its file systems. Answers whether it did in time, or had nothing to do: one that does not loses
   * what a power cut would take.
   */
  async unmount(deadlineMs: number): Promise<boolean> {
    try {
      await this.#sandbox.agent.call("deleteContainer", { containerId: this.#guestId }, deadlineMs);
      return true;
    } catch (error) {
      return !(error instanceof HuskError && error.code === "deadline");
    }
  }

  /** The VM is gone, or will be: lets every exec's stand-in end as killed. */
  abandonExecs(): void {
    for (const { process } of this.#execs.values()) process.standIn.exit({ signal: 9 });
  }

  /** The guest makes the process while the stand-in goes to its place. */
  async #runExec(process: GuestProcess, exec: ExecSpec): Promise<number> {
    const { standIn, target } = process;
    const { terminal, consoleSocket } = exec;
    const streams = streamsOf(terminal);
    const created = this.#createProcess(process, { ...exec, streams });
    try {
      const title = titleOf(exec.processJson);
      const placed = this.placeProcess(process, { terminal, consoleSocket, size: exec.size, streams, title });
      const [size] = await Promise.all([placed, created]);
      if (size !== null && terminal) await process.resize(size);
      const ended = process.follow(standIn.streams(streams));
      await process.start();
      void ended.then(({ end }) => this.#endExec(process, end));
      return await standIn.pid;
    } catch (error) {
      standIn.fail(explain(error), execFailed);
      await created.catch(() => {}); // what it made must be there to be forgotten; its failure is the error, or follows from the same one
      await standIn.pid.catch(() => {}); // until it dials, it must be found by its token, to be told; where nobody will, that was said
      this.#execs.delete(target.processId);
      await this.forgetProcess(process);
      throw error;
    }
  }

  /** The caller waits for the stand-in's end, and nobody for the guest's memory of the process. */
  async #endExec(process: GuestProcess, end: ProcessOutcome["end"]): Promise<void> {
    process.standIn.exit(end);
    this.#execs.delete(process.target.processId);
    await this.forgetProcess(process);
  }

  #demandExec({ ignorePaused }: Pick<ProcessSpec, "ignorePaused">): void {
    if (!(this.#status === "paused" && ignorePaused)) demand("exec", this.#spec.id, this.#status);
  }

  async #createProcess({ target }: GuestProcess, spec: ProcessSpec): Promise<void> {
    await this.#sandbox.agent.call("createProcess", {
      ...target,
      processJson: Buffer.from(spec.processJson),
      stdio: guestStdio(spec),
      ignorePaused: spec.ignorePaused,
      cgroup: spec.cgroup,
    });
  }

  #setStatus(status: ContainerStatus): void {
    this.#status = become(this.#status, status);
    this.#onStatus(status);
  }
}
