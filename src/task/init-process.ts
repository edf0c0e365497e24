/** A task's init: the container's own program, behind its stand-in. */
import { HuskError } from "../errors.ts";
import type { Container } from "../sandbox/container.ts";
import type { JoinedProcess, ProcessOutcome } from "../sandbox/guest-process.ts";
import type { WindowSize } from "../sandbox/stand-in.ts";
import type { StdioNames, TaskStdio } from "./stdio.ts";
import { TaskProcess } from "./task-process.ts";

export interface InitProcessOptions {
  readonly container: Container;
  /** The container's init, as it was joined to its streams. */
  readonly joined: JoinedProcess;
  readonly names: StdioNames;
  readonly stdio: TaskStdio;
  /** The stand-in's. */
  readonly pid: number;
  readonly standInEnded: Promise<void>;
  /** Done before the program runs. */
  readonly beforeStart: () => Promise<void>;
  /** Lets the program run, or go on. */
  readonly start: () => Promise<void>;
  /** Told before anybody else is. */
  readonly onEnd: (outcome: ProcessOutcome) => void;
  /** How long a guest that is told to kill the container may take to answer. */
  readonly killMs: number;
  /** Ends the virtual machine of one that is not in it yet. */
  readonly endSandbox: (reason: string) => Promise<void>;
}

const SIGKILL = 9;

export class InitProcess extends TaskProcess {
  readonly #options: InitProcessOptions;

  constructor(options: InitProcessOptions) {
    super("", options.names);
    this.#options = options;
    void this.follow(options.joined, options.container.init.standIn, options.standInEnded, options.onEnd);
  }

  override get pid(): number {
    return this.#options.pid;
  }

  override async resize(size: WindowSize): Promise<void> {
    await this.#options.container.init.resize(size);
  }

  override closeStdin(): void {
    this.#options.stdio.closeStdin();
  }

  /** One that was created and never started is killed: with runc, too, it may be deleted. */
  override async release(): Promise<void> {
    if (this.status === "running") throw new HuskError("wrong-state", "cannot delete a running process");
    if (this.status === "created") {
      await this.signal(SIGKILL, false).catch(() => {}); // it may just have ended
      await this.exited;
    }
    this.#options.stdio.close();
  }

  protected override async run(): Promise<void> {
    await this.#options.beforeStart();
    this.#options.stdio.openStdin();
    await this.#options.start();
  }

  protected override async signal(signal: number, all: boolean): Promise<void> {
    const { container, killMs, endSandbox } = this.#options;
    // One that is to go on from a checkpoint is not in the guest before that.
    if (container.status === "creating" && signal === SIGKILL) await endSandbox("it was killed before it was restored");
    else if (signal === SIGKILL) await container.killForSure(all, killMs);
    else await container.kill(signal, all);
  }
}
