/** Where the time goes on the way to a running container: marks, and the waterfall that `--trace` prints of them. */
import type { Mark } from "../telemetry/telemetry.ts";

export class Trace {
  readonly #originMs: number;
  /** Their times are counted from the origin. */
  readonly #marks: Mark[] = [];
  #onMark: ((text: string) => void) | undefined;

  /** `originMs`: when it all began, in the clock of `Date.now()`; the process's own start where nobody knows better. */
  constructor(originMs = performance.timeOrigin) {
    this.#originMs = originMs;
  }

  /** Notes that what `name` says has just been reached. */
  mark(name: string): void {
    const mark = { name, atMs: performance.timeOrigin + performance.now() - this.#originMs };
    this.#marks.push(mark);
    this.#onMark?.(lineOf(mark));
  }

  /** Tells `listener` of every mark, of those in the past at once. */
  follow(listener: (text: string) => void): void {
    this.#onMark = listener;
    for (const mark of this.#marks) listener(lineOf(mark));
  }

  /** When it all began, in milliseconds since 1970. */
  get startMs(): number {
    return this.#originMs;
  }

  /** What has been reached, in the clock of `Date.now()`. */
  get marks(): readonly Mark[] {
    return this.#marks.map(({ name, atMs }) => ({ name, atMs: this.#originMs + atMs }));
  }

  /** A line a mark: when it was reached, how long after the one before it, and a bar on the whole's scale. */
  waterfall(): string {
    const total = Math.max(1, this.#marks.at(-1)?.atMs ?? 0);
    const width = 40;
    let before = 0;
    return this.#marks
      .map(({ name, atMs }) => {
        const from = Math.round((before / total) * width);
        const bar = " ".repeat(from) + "█".repeat(Math.max(1, Math.round((atMs / total) * width) - from));
        const line = `${atMs.toFixed(0).padStart(6)} ms  +${(atMs - before).toFixed(0).padStart(5)} ms  ${bar.padEnd(width + 1)}  ${name}`;
        before = atMs;
        return line;
      })
      .join("\n");
  }
}

function lineOf({ name, atMs }: Mark): string {
  return `after ${atMs.toFixed(0)} ms: ${name}`;
}
