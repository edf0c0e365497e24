import { printable } from "./printable.ts";

/** Keeps the last bytes of a stream of text, for the error that may need them. */
export class Tail {
  readonly #limit: number;
  #text = "";

  /** `limit`: how many characters are kept. */
  constructor(limit = 4096) {
    this.#limit = limit;
  }

  add(chunk: string | Buffer): void {
    this.#text = (this.#text + chunk.toString()).slice(-this.#limit);
  }

  /** The last `lines` lines that are not blank, control characters removed (a guest's console is hostile to a terminal). */
  lines(lines: number): string[] {
    return this.#text
      .split("\n")
      .map((line) => printable(line).trimEnd())
      .filter((line) => line !== "")
      .slice(-lines);
  }
}
