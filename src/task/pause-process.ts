/**
 * The pause container of a pod, which holds a pod's namespaces together and does nothing else: the sandbox does that, so nothing runs in the guest for it.
 * There is its stand-in, whose PID and network namespace the engine wants, and it ends when it is told to.
 */
import type { StandIn } from "../sandbox/stand-in.ts";
import type { StdioNames, TaskStdio } from "./stdio.ts";
import { TaskProcess } from "./task-process.ts";

/** SIGKILL cannot be caught; the others that end it, the program of Kubernetes takes as a wish to end. */
const SIGKILL = 9;
const endingSignals: ReadonlySet<number> = new Set([2, 15]);

export class PauseProcess extends TaskProcess {
  readonly #stdio: TaskStdio;
  readonly #standIn: StandIn;
  readonly #beforeStart: () => Promise<void>;
  override readonly pid: number;

  /** `died`: settles when the sandbox does. `beforeStart`: done before it counts as running. */
  constructor(names: StdioNames, stdio: TaskStdio, standIn: StandIn, pid: number, died: Promise<string>, beforeStart: () => Promise<void>) {
    super("", names);
    this.#stdio = stdio;
    this.#standIn = standIn;
    this.pid = pid;
    this.#beforeStart = beforeStart;
    void died.then(() => this.#end(128 + SIGKILL));
  }

  override async resize(): Promise<void> {}

  override closeStdin(): void {
    this.#stdio.closeStdin();
  }

  override async release(): Promise<void> {
    this.#end(128 + SIGKILL);
    this.#stdio.close();
  }

  protected override async run(): Promise<void> {
    await this.#beforeStart();
  }

  protected override async signal(signal: number): Promise<void> {
    if (signal === SIGKILL) this.#end(128 + SIGKILL);
    else if (endingSignals.has(signal)) this.#end(0);
  }

  /** Somebody killed its stand-in. */
  lost(): void {
    this.#end(128 + SIGKILL);
  }

  #end(status: number): void {
    this.#standIn.exit(status > 128 ? { signal: status - 128 } : { code: status });
    this.finish({ status, at: new Date() });
  }
}
