/** One process in the guest together with the stand-in on the host that is its PID here. */
import type { Readable, Writable } from "node:stream";
import { withDeadline } from "../host/deadline.ts";
import type { Sandbox } from "./sandbox.ts";
import { type ProcessEnd, StandIn, type WindowSize } from "./stand-in.ts";
import { type ProcessTarget, pumpOutput, pumpStdin } from "./stdio.ts";

/** How a process ended, when, and why where it was not its own doing. */
export interface ProcessOutcome {
  readonly end: ProcessEnd;
  readonly at: Date;
  readonly reason?: string;
  /** Whether it was killed for want of memory. */
  readonly oomKilled?: boolean;
  /** Whether it was a container's init, and no process of any container is left in the guest. */
  readonly isLast?: boolean;
}

/** What a process's streams are joined to, each as soon as it is open; a stream that is not named is /dev/null in the guest. */
export interface ProcessStreams {
  readonly stdin?: Promise<Readable>;
  readonly stdout?: Promise<Writable>;
  readonly stderr?: Promise<Writable>;
}

/** A process whose streams are joined: neither promise rejects. */
export interface JoinedProcess {
  /** Its end, or the VM's. */
  readonly ended: Promise<ProcessOutcome>;
  /** Resolves when the last byte of its output has left. */
  readonly flushed: Promise<void>;
}

/** The signal that stands for the death of everything at once. */
const SIGKILL = 9;

export class GuestProcess {
  readonly target: ProcessTarget;
  readonly standIn: StandIn;
  readonly #sandbox: Sandbox;
  readonly #onEarlySignal: (signal: number) => void;
  #created = false;
  #started = false;

  /** `onEarlySignal` is told signals that reach the stand-in before the process exists in the guest. */
  constructor(sandbox: Sandbox, target: ProcessTarget, onEarlySignal: (signal: number) => void = () => {}) {
    this.#sandbox = sandbox;
    this.#onEarlySignal = onEarlySignal;
    this.target = target;
    this.standIn = new StandIn({
      signal: (signal) => this.#forward(signal),
      resize: (size) => this.#resize(size),
      lost: () => this.#forward(SIGKILL),
    });
  }

  get started(): boolean {
    return this.#started;
  }

  /**
   * Joins `streams` to the process, and waits for its end: resolves once the process has ended and its last byte of output has left, or the
   * VM has died. The process must have been created in the guest.
   */
  async follow(streams: ProcessStreams): Promise<ProcessOutcome> {
    const { ended, flushed } = this.join(streams);
    const outcome = await ended;
    await flushed;
    return outcome;
  }

  /**
   * As `follow`, with the process's end and its last byte told apart: who has nobody to read the output need not wait for it. Neither rejects. `told`: an output
   * that ends because the process does ends after this, which must resolve whatever happens; who sees the end of file can rely on what was told by then.
   */
  join(streams: ProcessStreams, told?: Promise<void>): JoinedProcess {
    this.#created = true;
    const { agent, died, outputs } = this.#sandbox;
    const wait = agent.waitProcess(this.target);
    const { stdin, stdout, stderr } = streams;
    stdin?.then(
      (source) => void pumpStdin(agent, this.target, source),
      () => {}, // there is nobody to read from
    );
    const pump = async (name: "stdout" | "stderr", sink: Promise<Writable>): Promise<void> =>
      pumpOutput(agent, this.target, name, await sink, outputs, told);
    const pumps = [...(stdout ? [pump("stdout", stdout)] : []), ...(stderr ? [pump("stderr", stderr)] : [])];
    const flushed = Promise.allSettled(pumps).then(() => {}); // a stream that never opened has nobody to write to
    const outcome = wait.answer.then(
      ({ end, oomKilled, endedUnixNs, isLast }): ProcessOutcome => ({
        end: end?.$case === "signal" ? { signal: end.value } : { code: end?.value ?? 255 },
        at: new Date(Number(endedUnixNs / 1_000_000n)),
        isLast,
        ...(oomKilled ? { reason: "out of memory", oomKilled } : {}),
      }),
      // The call fails when its channel does. The VM's own death says why; it is noticed within moments, or the agent alone is gone.
      async (error: Error): Promise<ProcessOutcome> => {
        const reason = await withDeadline(died, 1000, "the VM").catch(() => error.message);
        return { end: { signal: SIGKILL }, at: new Date(), reason };
      },
    );
    const ended = Promise.race([outcome, died.then((reason): ProcessOutcome => ({ end: { signal: SIGKILL }, at: new Date(), reason }))]);
    return { ended, flushed };
  }

  /**
   * Lets the created process execute its program. Throws `program-not-found` and its like where execve fails. `notMade`: its container is still being made, and will not
   * be where that aborts: then nobody else's is started in its place.
   */
  async start(notMade?: AbortSignal): Promise<void> {
    notMade?.throwIfAborted();
    await this.#sandbox.agent.call("startProcess", { ...this.target, onceMade: notMade !== undefined }, undefined, notMade);
    this.#started = true;
  }

  /** Takes it for started: it was, before the checkpoint that it was restored from. */
  goOn(): void {
    this.#started = true;
  }

  /** Sends a signal. `all`: to every process of the container; `deadlineMs`: where it is not that of every call. */
  async signal(signal: number, all = false, deadlineMs?: number): Promise<void> {
    await this.#sandbox.agent.call("signalProcess", { ...this.target, signal, all }, deadlineMs);
  }

  async resize(size: WindowSize): Promise<void> {
    await this.#sandbox.agent.call("resizePty", { ...this.target, size });
  }

  /** A signal that reached the stand-in. One that can no longer be delivered meets a process that has ended: its end is the answer. */
  #forward(signal: number): void {
    if (!this.#created) return this.#onEarlySignal(signal);
    this.signal(signal).catch(() => {});
  }

  #resize(size: WindowSize): void {
    this.resize(size).catch(() => {}); // likewise
  }
}
