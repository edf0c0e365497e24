/**
 * The helper of a sandbox that is about to be launched. It is started before anything is taken of the host: whenever the supervisor dies from then on, what
 * it leaves behind is seen to.
 */
import { SandboxProcess } from "../host/sandbox-process.ts";
import { channelCount, type SandboxSpec } from "./sandbox-plan.ts";

export class EarlyHelper implements AsyncDisposable {
  readonly #process: SandboxProcess;
  #isTaken = false;

  /** Throws `host` where the helper cannot be started. */
  constructor({ programs, remains }: Pick<SandboxSpec, "programs" | "remains">) {
    this.#process = SandboxProcess.start(programs.helper, channelCount);
    if (remains.length > 0) this.#process.setRemains(remains).catch(() => {}); // its failure is the launch's
  }

  /** Gives it to a launch, whose business it is from now on. */
  take(): SandboxProcess {
    this.#isTaken = true;
    return this.#process;
  }

  /** Ends it where there was no launch, and nothing remains of what was taken for one. */
  async [Symbol.asyncDispose](): Promise<void> {
    if (this.#isTaken) return;
    this.#process.nothingRemains();
    await this.#process.kill();
  }
}
