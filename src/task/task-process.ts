/** One process of a task, as the Task API sees it: its state, its end, and what is asked of it. */
import { HuskError } from "../errors.ts";
import { withDeadline } from "../host/deadline.ts";
import { type Deferred, deferred } from "../host/deferred.ts";
import type { JoinedProcess, ProcessOutcome } from "../sandbox/guest-process.ts";
import type { StandIn, WindowSize } from "../sandbox/stand-in.ts";
import type { StdioNames } from "./stdio.ts";

/** How long an ended process's output may take to leave before its end is told all the same: a client may have stopped reading. */
const flushMs = 2_000;

/** How long a stand-in may take to end once it is told to; it does nothing else then. */
const goneMs = 2_000;

export interface TaskExit {
  /** The program's own, or 128 and the signal that killed it. */
  readonly status: number;
  readonly at: Date;
}

export type TaskProcessStatus = "created" | "running" | "stopped";

export abstract class TaskProcess {
  /** The exec's id; "" is the task's init. */
  readonly id: string;
  readonly names: StdioNames;
  readonly #exited: Deferred<TaskExit> = deferred();
  #exit: TaskExit | undefined;
  #status: TaskProcessStatus = "created";
  /** Its end is known, though its output may still be leaving. */
  #over = false;

  protected constructor(id: string, names: StdioNames) {
    this.id = id;
    this.names = names;
  }

  /** The stand-in's PID; 0 where there is none yet. */
  abstract readonly pid: number;

  get status(): TaskProcessStatus {
    return this.#status;
  }

  get exit(): TaskExit | undefined {
    return this.#exit;
  }

  /** Resolves at its end, once its output has left; rejects where it was deleted without ever having been started. */
  get exited(): Promise<TaskExit> {
    return this.#exited.promise;
  }

  /** Runs the program. Throws `wrong-state`, and the guest's errors. */
  async start(): Promise<void> {
    if (this.#status !== "created") throw new HuskError("wrong-state", `cannot start a process that is ${this.#status}`);
    await this.run();
    if (this.#exit === undefined) this.#status = "running";
  }

  /** Sends a signal; `all`: to every process of the container. Throws `not-found` where it has ended. */
  async kill(signal: number, all: boolean): Promise<void> {
    if (this.#over || this.#status === "stopped") throw finished();
    try {
      await this.signal(signal, all);
    } catch (error) {
      // The guest knows of its end before we do, or we have heard of it meanwhile.
      if (this.#status !== "created" && error instanceof HuskError && error.code === "wrong-state") throw finished(error);
      throw error;
    }
  }

  abstract resize(size: WindowSize): Promise<void>;

  /** No client will write to its standard input any more. */
  abstract closeStdin(): void;

  /** Gives back what it holds. It must have ended, or never been started. */
  abstract release(): Promise<void>;

  protected abstract run(): Promise<void>;

  protected abstract signal(signal: number, all: boolean): Promise<void>;

  /**
   * Waits for the process's end, and for its output to leave; then its stand-in ends as it did, and its end is told: whoever hears of it finds nobody at its
   * PID any more. `standInEnded`: when the stand-in has. `onEnd` is told first.
   */
  protected async follow(
    joined: JoinedProcess,
    standIn: StandIn,
    standInEnded: Promise<void>,
    onEnd: (outcome: ProcessOutcome) => void = () => {},
  ): Promise<void> {
    const outcome = await joined.ended;
    this.#over = true;
    onEnd(outcome);
    await withDeadline(joined.flushed, flushMs, "the output").catch(() => {}); // what is left goes on until the process is deleted
    standIn.exit(outcome.end);
    await ended(standInEnded);
    this.finish(exitOf(outcome));
  }

  protected finish(exit: TaskExit): void {
    if (this.#exit !== undefined) return;
    this.#status = "stopped";
    this.#exit = exit;
    this.#exited.resolve(exit);
  }

  /** It will never run. */
  protected forsake(error: HuskError): void {
    this.#status = "stopped";
    this.#exited.reject(error);
  }
}

/** Waits for a stand-in that was told to end, within bounds: where somebody has stopped it, its process's end is no less true. */
export async function ended(standIn: Promise<void>): Promise<void> {
  await withDeadline(standIn, goneMs, "the stand-in").catch(() => {});
}

/** Engines take it for a success: the process has ended, as they wished. */
function finished(cause?: HuskError): HuskError {
  return new HuskError("not-found", "process already finished", { cause });
}

/** A guest process's end in the Task API's words. */
function exitOf({ end, at }: ProcessOutcome): TaskExit {
  return { status: "code" in end ? end.code : 128 + end.signal, at };
}
