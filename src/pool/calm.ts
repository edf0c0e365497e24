/** Whether containers are being started, one after the other: what costs processor time, and is not wanted at once, waits until they are not. */
import { type Deferred, deferred } from "../host/deferred.ts";

export class Calm {
  readonly #afterMs: number;
  #disturbances = 0;
  #timer: NodeJS.Timeout | undefined;
  /** Resolves when it is calm again; undefined while it is. */
  #coming: Deferred<void> | undefined;

  /** It is calm again once no disturbance has been there for so many milliseconds. */
  constructor(afterMs: number) {
    this.#afterMs = afterMs;
  }

  /** Somebody's start is a disturbance, `until` this settles. */
  disturb(until: Promise<unknown>): void {
    this.#disturbances++;
    this.#coming ??= deferred();
    clearTimeout(this.#timer);
    const end = (): void => {
      if (--this.#disturbances === 0) this.#timer = setTimeout(() => this.#settle(), this.#afterMs).unref();
    };
    until.then(end, end);
  }

  /** Resolves once it is calm. */
  async come(): Promise<void> {
    await this.#coming?.promise;
  }

  #settle(): void {
    this.#coming?.resolve();
    this.#coming = undefined;
  }
}
