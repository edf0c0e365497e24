/** A further process in a task's container: known from Exec on, made in the guest at its start. */
import { HuskError } from "../errors.ts";
import { startStandIn } from "../host/stand-in-process.ts";
import type { Container } from "../sandbox/container.ts";
import type { GuestProcess } from "../sandbox/guest-process.ts";
import { type StreamName, titleOf, type WindowSize } from "../sandbox/stand-in.ts";
import type { StdioNames, TaskStdio } from "./stdio.ts";
import { TaskProcess } from "./task-process.ts";

export interface ExecProcessOptions {
  readonly id: string;
  readonly container: Container;
  /** The spec's process object, as JSON. */
  readonly processJson: string;
  readonly names: StdioNames;
  readonly stdio: TaskStdio;
  readonly helper: string;
  /** Where stand-ins dial. */
  readonly controlSocket: string;
}

export class ExecProcess extends TaskProcess {
  readonly #options: ExecProcessOptions;
  #process: GuestProcess | undefined;
  #pid = 0;
  #standInEnded: Promise<void> = Promise.resolve();
  /** Asked for before there is a terminal to resize. */
  #size: WindowSize | null = null;

  constructor(options: ExecProcessOptions) {
    super(options.id, options.names);
    this.#options = options;
  }

  override get pid(): number {
    return this.#pid;
  }

  override async resize(size: WindowSize): Promise<void> {
    this.#size = size;
    if (this.status === "running") await this.#process?.resize(size);
  }

  override closeStdin(): void {
    this.#options.stdio.closeStdin();
  }

  override async release(): Promise<void> {
    if (this.status === "running") throw new HuskError("wrong-state", `cannot delete the running process ${this.id}`);
    this.#options.stdio.close();
    if (this.status === "created") this.forsake(new HuskError("not-found", `the process ${this.id} was deleted before it ran`));
    if (this.#process !== undefined) await this.#options.container.forgetProcess(this.#process);
    this.#process?.standIn.abandon(255);
    await this.#standInEnded;
  }

  protected override async run(): Promise<void> {
    const { container, id, processJson, names, stdio, helper, controlSocket } = this.#options;
    const streams = Object.keys(stdio.streams) as StreamName[];
    try {
      const process = await container.addProcess(id, {
        processJson,
        terminal: names.terminal,
        plainNewlines: false,
        size: this.#size,
        ignorePaused: false,
        cgroup: "",
        streams,
      });
      this.#process = process;
      const standIn = startStandIn(helper, controlSocket, process.standIn.token);
      this.#standInEnded = standIn.ended;
      this.#pid = await Promise.race([process.standIn.pid, standIn.failed]);
      await container.placeProcess(process, { terminal: false, consoleSocket: null, size: null, streams: [], title: titleOf(processJson) });
      stdio.openStdin();
      const joined = process.join(stdio.streams);
      await process.start();
      void this.follow(joined, process.standIn, standIn.ended);
    } catch (error) {
      this.#process?.standIn.abandon(255);
      stdio.close(); // its client waits for the outputs' ends
      throw error;
    }
  }

  protected override async signal(signal: number, all: boolean): Promise<void> {
    if (this.#process === undefined || this.status === "created") throw new HuskError("wrong-state", `process ${this.id} was not started`);
    await this.#process.signal(signal, all);
  }
}
