/** What a program writes, kept, and waited for by what it says rather than by time. */
import type { Readable } from "node:stream";

/** How long a test waits for what must come: a VM boots in about a second, several times that where the machine is busy or is emulated itself. */
export const patienceMs = Number(process.env["HUSK_TEST_PATIENCE_S"] ?? 60) * 1000;

/** So much is kept at most: what is longer is streamed by the test itself. */
const keptBytes = 64 * 1024 * 1024;

/** So much of it is in an error. */
const shownCharacters = 2000;

export class Output {
  readonly #name: string;
  readonly #chunks: Buffer[] = [];
  readonly #changed = new Set<() => void>();
  #size = 0;
  #seen = 0;
  #ended = false;

  constructor(name: string, stream: Readable) {
    this.#name = name;
    stream.on("data", (chunk: Buffer) => {
      this.#size += chunk.length;
      if (this.#size > keptBytes) stream.destroy(new Error(`${name} is longer than ${keptBytes} bytes`));
      else this.#chunks.push(chunk);
      this.#notify();
    });
    stream.once("close", () => {
      this.#ended = true;
      this.#notify();
    });
    stream.once("error", () => {}); // "close" follows
  }

  bytes(): Buffer {
    return Buffer.concat(this.#chunks);
  }

  text(): string {
    return this.bytes().toString("utf8");
  }

  /**
   * Waits until what came since the last call has `expected` in it, and answers the text up to and with it. Throws with all that came where the stream
   * ends first, or nothing comes in time.
   */
  async until(expected: string | RegExp, withinMs = patienceMs): Promise<string> {
    const deadline = Date.now() + withinMs;
    for (;;) {
      const fresh = this.text().slice(this.#seen);
      const end = endOfMatch(fresh, expected);
      if (end !== undefined) {
        this.#seen += end;
        return fresh.slice(0, end);
      }
      const shown = JSON.stringify(fresh.slice(-shownCharacters));
      if (this.#ended) throw new Error(`${this.#name} ended before ${String(expected)}: ${shown}`);
      await this.#next(deadline - Date.now(), () => new Error(`${this.#name}: no ${String(expected)} in ${withinMs} ms: ${shown}`));
    }
  }

  /** Waits for one line and answers it without its end. */
  async line(withinMs = patienceMs): Promise<string> {
    return (await this.until("\n", withinMs)).replace(/\r?\n$/, "");
  }

  #next(withinMs: number, late: () => Error): Promise<void> {
    return new Promise((resolve, reject) => {
      const done = (): void => {
        clearTimeout(timer);
        this.#changed.delete(done);
        resolve();
      };
      const timer = setTimeout(() => {
        this.#changed.delete(done);
        reject(late());
      }, withinMs);
      this.#changed.add(done);
    });
  }

  #notify(): void {
    for (const done of this.#changed) done();
  }
}

function endOfMatch(text: string, expected: string | RegExp): number | undefined {
  if (typeof expected === "string") {
    const at = text.indexOf(expected);
    return at === -1 ? undefined : at + expected.length;
  }
  const match = expected.exec(text);
  return match === null ? undefined : match.index + match[0].length;
}
