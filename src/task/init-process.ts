/** A task's init: the container's own program, behind its stand-in. */
import { HuskError } from "../errors.ts";
import { withDeadline } from "../host/deadline.ts";
import type { Container } from "../sandbox/container.ts";
import type { JoinedProcess } from "../sandbox/guest-process.ts";
import type { WindowSize } from "../sandbox/stand-in.ts";
import { flushMs } from "./exec-process.ts";
import type { StdioNames, TaskStdio } from "./stdio.ts";
import { exitOf, TaskProcess } from "./task-process.ts";

export interface InitProcessOptions {
  readonly container: Container;
  /** The container's init, as it was joined to its streams. */
  readonly joined: JoinedProcess;
  readonly names: StdioNames;
  readonly stdio: TaskStdio;
  /** The stand-in's. */
  readonly pid: number;
  /** Done before the program runs. */
  readonly beforeStart: () => Promise<void>;
  /** Told why the container ended, where it was not its own doing. */
  readonly onReason: (reason: string) => void;
}

export class InitProcess extends TaskProcess {
  readonly #options: InitProcessOptions;

  constructor(options: InitProcessOptions) {
    super("", options.names);
    this.#options = options;
    const { ended, flushed } = options.joined;
    void ended.then(async (outcome) => {
      if (outcome.reason !== undefined) options.onReason(outcome.reason);
      await withDeadline(flushed, flushMs, "the output").catch(() => {}); // what is left goes on until the task is deleted
      options.container.init.standIn.exit(outcome.end);
      this.finish(exitOf(outcome));
    });
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
      await this.signal(9, false).catch(() => {}); // it may just have ended
      await this.exited;
    }
    this.#options.stdio.close();
  }

  protected override async run(): Promise<void> {
    await this.#options.beforeStart();
    this.#options.stdio.openStdin();
    await this.#options.container.start();
  }

  protected override async signal(signal: number, all: boolean): Promise<void> {
    await this.#options.container.kill(signal, all);
  }
}
