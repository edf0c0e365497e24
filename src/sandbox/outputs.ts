/**
 * How much has come of each output of the sandbox's processes. Before a checkpoint all that the guest has read of them must be here: it is in nobody's memory
 * after a restore.
 */
import type { OutputKind, OutputPosition } from "../gen/agent/v1/agent.ts";
import { withDeadline } from "../host/deadline.ts";
import type { ProcessTarget } from "./stdio.ts";

/** An output that is on its way, from its call to its end. */
export class OutputProgress {
  readonly target: ProcessTarget;
  readonly kind: OutputKind;
  readonly #hurry: () => void;
  readonly #forget: () => void;
  readonly #waiting = new Set<() => void>();
  #bytes = 0;
  #isOver = false;
  #isHurried = false;

  /** `hurry`: lets what stands still for a slow reader come. */
  constructor(target: ProcessTarget, kind: OutputKind, hurry: () => void, forget: () => void) {
    this.target = target;
    this.kind = kind;
    this.#hurry = hurry;
    this.#forget = forget;
  }

  /** Whether it shall come however slow its reader is. */
  get isHurried(): boolean {
    return this.#isHurried;
  }

  add(bytes: number): void {
    this.#bytes += bytes;
    this.#tell();
  }

  end(): void {
    this.#isOver = true;
    this.#forget();
    this.#tell();
  }

  /** Resolves when that many bytes have come, or all there will ever be. */
  async reach(bytes: number): Promise<void> {
    this.#isHurried = true;
    this.#hurry();
    while (this.#bytes < bytes && !this.#isOver) await new Promise<void>((resolve) => this.#waiting.add(resolve));
    this.#isHurried = false;
  }

  #tell(): void {
    for (const resolve of this.#waiting) resolve();
    this.#waiting.clear();
  }
}

export class Outputs {
  readonly #open = new Set<OutputProgress>();

  /** An output that is being read from now on; `hurry` as OutputProgress has it. */
  begin(target: ProcessTarget, kind: OutputKind, hurry: () => void): OutputProgress {
    const progress: OutputProgress = new OutputProgress(target, kind, hurry, () => this.#open.delete(progress));
    this.#open.add(progress);
    return progress;
  }

  /** Resolves when everything that the guest has read is here. One that it reads no more is over, and its end on its way. Throws `deadline`. */
  async caughtUp(positions: readonly OutputPosition[], deadlineMs: number): Promise<void> {
    const reached = [...this.#open].map((progress) => {
      const position = positions.find(
        ({ containerId, processId, output }) =>
          containerId === progress.target.containerId && processId === progress.target.processId && output === progress.kind,
      );
      return progress.reach(position === undefined ? Number.POSITIVE_INFINITY : Number(position.bytes));
    });
    await withDeadline(Promise.all(reached), deadlineMs, "the containers' output");
  }
}
