/**
 * The helper of a sandbox that is about to be launched. It is started before anything is taken of the host: whenever the supervisor dies from then on, what
 * it leaves behind is seen to.
 */
import { explain } from "../errors.ts";
import { SandboxProcess } from "../host/sandbox-process.ts";
import type { Zygote } from "../template/zygote.ts";
import { channelCount, type SandboxSpec } from "./sandbox-plan.ts";

export class EarlyHelper implements AsyncDisposable {
  /** Settles with the reason when it can no longer be of use; never rejects. */
  readonly died: Promise<string>;
  readonly #process: SandboxProcess;
  #isTaken = false;

  /** Throws `host` where the helper cannot be started. */
  constructor({ programs, remains }: Pick<SandboxSpec, "programs" | "remains">) {
    this.#process = SandboxProcess.start(programs.helper, channelCount);
    this.died = this.#process.failed.catch(explain);
    if (remains.length > 0) this.setRemains(remains).catch(() => {}); // its failure is the launch's
  }

  /** What is run once the supervisor is dead, from now on. */
  setRemains(program: readonly string[]): Promise<void> {
    return this.#process.setRemains(program);
  }

  /** Fills memory for a copy of the zygote: see `SandboxSpec.filled`. Throws `host`. */
  fill({ memory, sum }: Zygote, bytes: number): Promise<void> {
    return this.#process.fill(memory, bytes, sum);
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
