/**
 * What stands for a pod itself: the pause container, which holds a pod's namespaces together and does nothing else. The sandbox does that, so nothing runs in
 * the guest for it. There is its stand-in, whose PID and network namespace the engine wants, and it ends when it is told to.
 */
import { deferred } from "../host/deferred.ts";
import { startStandIn } from "../host/stand-in-process.ts";
import type { HostedSandbox } from "../sandbox/hosted-sandbox.ts";
import { StandIn } from "../sandbox/stand-in.ts";
import type { Pod } from "./pod.ts";
import type { StdioNames, TaskStdio } from "./stdio.ts";
import { ended, TaskProcess } from "./task-process.ts";

/** SIGKILL cannot be caught; the others that end it, the program of Kubernetes takes as a wish to end. */
const SIGKILL = 9;
const endingSignals: ReadonlySet<number> = new Set([2, 15]);

export interface PauseOptions {
  readonly pod: Pod;
  readonly hosted: HostedSandbox;
  /** Of the stand-in: a folder, or null. */
  readonly rootfs: string | null;
  readonly cgroups: readonly string[];
  readonly names: StdioNames;
  readonly stdio: TaskStdio;
  /** What ps shows of the stand-in. */
  readonly title: readonly string[];
  /** Settings of the kernel (linux.sysctl) for the namespaces that the pod's containers share. */
  readonly sysctl: Readonly<Record<string, string>>;
}

export class PauseProcess extends TaskProcess {
  readonly #options: PauseOptions;
  readonly #standIn: StandIn;
  readonly #standInEnded: Promise<void>;
  readonly #dismiss: () => void;
  override readonly pid: number;

  /** Starts the stand-in, and waits until it is in its place and the guest answers. Throws `host`, `vmm`, `guest` or `deadline`, with nothing left. */
  static async create(options: PauseOptions): Promise<PauseProcess> {
    const { pod, hosted, rootfs, cgroups, title } = options;
    const lost = deferred<void>();
    const standIn = new StandIn({ signal: () => {}, resize: () => {}, lost: () => lost.resolve() });
    const dismiss = pod.admit((token) => (token === standIn.token ? standIn : undefined));
    const { failed, ended: standInEnded } = startStandIn(pod.helper, pod.controlSocket, standIn.token);
    const place = async (): Promise<number> => {
      const netns = await hosted.sandbox.netns();
      await standIn.place({ netns, rootfs, cgroups, beside: null, terminal: false, consoleSocket: null, size: null, streams: [], title });
      return standIn.pid;
    };
    try {
      const pid = await hosted.startWith(Promise.race([place(), failed]));
      const process = new PauseProcess(options, standIn, pid, standInEnded, dismiss);
      void Promise.race([lost.promise, hosted.sandbox.died]).then(() => process.#end(128 + SIGKILL));
      return process;
    } catch (error) {
      standIn.abandon(255);
      await standInEnded;
      dismiss();
      throw error;
    }
  }

  private constructor(options: PauseOptions, standIn: StandIn, pid: number, standInEnded: Promise<void>, dismiss: () => void) {
    super("", options.names);
    this.#options = options;
    this.#standIn = standIn;
    this.pid = pid;
    this.#standInEnded = standInEnded;
    this.#dismiss = dismiss;
  }

  override async resize(): Promise<void> {}

  override closeStdin(): void {
    this.#options.stdio.closeStdin();
  }

  override async release(): Promise<void> {
    await this.#end(128 + SIGKILL);
    this.#options.stdio.close();
    await this.#standInEnded;
    this.#dismiss();
  }

  protected override async run(): Promise<void> {
    const { pod, hosted, sysctl } = this.#options;
    await pod.mirrorNetwork();
    // After the network: a setting may be that of a link.
    if (Object.keys(sysctl).length > 0) await hosted.sandbox.agent.call("setSysctls", { settings: sysctl });
  }

  protected override async signal(signal: number): Promise<void> {
    if (signal === SIGKILL) await this.#end(128 + SIGKILL);
    else if (endingSignals.has(signal)) await this.#end(0);
  }

  async #end(status: number): Promise<void> {
    const at = new Date();
    this.#standIn.exit(status > 128 ? { signal: status - 128 } : { code: status });
    await ended(this.#standInEnded);
    this.finish({ status, at });
  }
}
