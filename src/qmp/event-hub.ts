/**
 * Who listens to which event, and who waits for one.
 */
import { read } from "../narrow.ts";
import { eventReaders, isKnownEvent, type QmpEventName, type QmpEvents } from "./events.ts";
import type { QmpTimestamp } from "./message.ts";
import { Waiter, type WaitOptions } from "./waiter.ts";

export type Listener<E extends QmpEventName> = (data: QmpEvents[E], timestamp: QmpTimestamp) => void;
export type AnyListener = (name: string, data: unknown, timestamp: QmpTimestamp) => void;

export class EventHub {
  readonly #listeners = new Set<AnyListener>();
  readonly #waits = new Set<{ reject(error: unknown): void }>();
  #failure: Error | undefined;

  on<E extends QmpEventName>(event: E, listener: Listener<E>): () => void {
    return this.onAny((name, data, timestamp) => {
      // `dispatch` has read the data with the reader of this very event.
      if (name === event) listener(data as QmpEvents[E], timestamp);
    });
  }

  onAny(listener: AnyListener): () => void {
    // A function of its own for each call, so that the same listener added twice is called twice and removed once.
    const own: AnyListener = (name, data, timestamp) => listener(name, data, timestamp);
    this.#listeners.add(own);
    return () => {
      this.#listeners.delete(own);
    };
  }

  waitFor<E extends QmpEventName>(event: E, predicate: (data: QmpEvents[E]) => boolean, options: WaitOptions): Promise<QmpEvents[E]> {
    let stop = () => {};
    const late = (deadlineMs: number) => `QEMU did not report ${event} within ${deadlineMs} ms`;
    const waiter = new Waiter<QmpEvents[E]>(options, late, () => stop());
    // Callers begin to wait, then do what the event follows from; where that fails, nobody looks at this promise again.
    waiter.promise.catch(() => {});
    if (this.#failure !== undefined) waiter.reject(this.#failure);
    else if (options.signal?.aborted !== true) {
      const off = this.on(event, (data) => {
        try {
          if (!predicate(data)) return;
          waiter.resolve(data);
        } catch (error) {
          waiter.reject(error);
        }
        stop();
      });
      this.#waits.add(waiter);
      stop = () => {
        off();
        this.#waits.delete(waiter);
      };
    }
    return waiter.promise;
  }

  /** Checks an event's data and calls the listeners. Throws a ShapeError where the data of a known event is not what it has to be. */
  dispatch(name: string, data: unknown, timestamp: QmpTimestamp): void {
    const checked: unknown = isKnownEvent(name) ? read<unknown>(eventReaders[name], data) : data;
    for (const listener of this.#listeners) {
      try {
        listener(name, checked, timestamp);
      } catch (error) {
        // A listener's defect is not the connection's: it surfaces as an uncaught exception, and the others hear of the event.
        queueMicrotask(() => {
          throw error;
        });
      }
    }
  }

  /** The connection has ended: nothing will be reported any more. */
  fail(reason: Error): void {
    this.#failure = reason;
    this.#listeners.clear();
    for (const wait of this.#waits) wait.reject(reason);
    this.#waits.clear();
  }
}
