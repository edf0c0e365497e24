import { HuskError } from "../errors.ts";

export interface WaitOptions {
  /** How long to wait, in milliseconds. */
  readonly deadlineMs?: number | undefined;
  /** Gives the wait up; the promise rejects with the signal's reason. */
  readonly signal?: AbortSignal | undefined;
}

/** Of a command or a wait that names no deadline of its own. */
export const DEFAULT_DEADLINE_MS = 10_000;

/** setTimeout takes 31 bits, and fires at once for more. */
const MAX_TIMEOUT_MS = 2 ** 31 - 1;

/** A promise that ends by an answer, an error, a deadline or a signal, whichever is first, and then leaves nothing behind. */
export class Waiter<T> {
  readonly promise: Promise<T>;
  readonly #resolvers = Promise.withResolvers<T>();
  readonly #timer: NodeJS.Timeout;
  readonly #signal: AbortSignal | undefined;
  readonly #onAbort: () => void;
  readonly #onGivenUp: () => void;

  /**
   * @param late the message of the error when the deadline passes.
   * @param onGivenUp called when the deadline or the signal ends the wait, before the promise rejects.
   */
  constructor(options: WaitOptions, late: (deadlineMs: number) => string, onGivenUp: () => void) {
    const deadlineMs = Math.min(options.deadlineMs ?? DEFAULT_DEADLINE_MS, MAX_TIMEOUT_MS);
    this.promise = this.#resolvers.promise;
    this.#onGivenUp = onGivenUp;
    this.#signal = options.signal;
    this.#onAbort = () => this.#giveUp(options.signal?.reason);
    this.#timer = setTimeout(() => this.#giveUp(new HuskError("deadline", late(deadlineMs))), deadlineMs);
    if (options.signal?.aborted) this.#onAbort();
    else options.signal?.addEventListener("abort", this.#onAbort, { once: true });
  }

  resolve(value: T): void {
    this.#release();
    this.#resolvers.resolve(value);
  }

  reject(error: unknown): void {
    this.#release();
    this.#resolvers.reject(error);
  }

  #giveUp(reason: unknown): void {
    this.#onGivenUp();
    this.reject(reason);
  }

  #release(): void {
    clearTimeout(this.#timer);
    this.#signal?.removeEventListener("abort", this.#onAbort);
  }
}
