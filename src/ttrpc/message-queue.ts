/**
 * What has come on a stream and is not yet read. ttrpc has no flow control of a stream's own: where a queue is full, the whole connection
 * is held until it is not.
 */
const maxMessages = 64;
const maxQueuedBytes = 1024 * 1024;

interface Entry<T> {
  readonly message: T;
  readonly bytes: number;
}

/** To be read once, by one reader. */
export class MessageQueue<T> implements AsyncIterable<T> {
  readonly #hold: () => () => void;
  #entries: Entry<T>[] = [];
  #bytes = 0;
  #release: (() => void) | undefined;
  #wake: (() => void) | undefined;
  /** Nothing comes any more; `#failure` says why, where it is not the end of the stream. */
  #ended = false;
  #failure: Error | undefined;

  /** @param hold stops the source; what it gives lets it go on. */
  constructor(hold: () => () => void) {
    this.#hold = hold;
  }

  /** Adds a message that was `bytes` long; after the end it is dropped. */
  push(message: T, bytes: number): void {
    if (this.#ended) return;
    this.#entries.push({ message, bytes });
    this.#bytes += bytes;
    if (this.#entries.length >= maxMessages || this.#bytes >= maxQueuedBytes) this.#release ??= this.#hold();
    this.#wake?.();
  }

  /** The reader gets what is queued, and then the end, or the error. */
  end(failure?: Error): void {
    if (this.#ended) return;
    this.#ended = true;
    this.#failure = failure;
    this.#letGo();
    this.#wake?.();
  }

  /** Nobody reads any more. */
  discard(): void {
    this.#entries = [];
    this.#bytes = 0;
    this.end();
  }

  async *[Symbol.asyncIterator](): AsyncGenerator<T, void, void> {
    try {
      for (;;) {
        const entry = this.#entries.shift();
        if (entry !== undefined) {
          this.#bytes -= entry.bytes;
          if (this.#entries.length < maxMessages && this.#bytes < maxQueuedBytes) this.#letGo();
          yield entry.message;
        } else if (this.#failure !== undefined) {
          throw this.#failure;
        } else if (this.#ended) {
          return;
        } else {
          await new Promise<void>((resolve) => {
            this.#wake = resolve;
          });
        }
      }
    } finally {
      this.discard();
    }
  }

  #letGo(): void {
    this.#release?.();
    this.#release = undefined;
  }
}
