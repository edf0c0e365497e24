/**
 * Cuts a byte stream into lines, without ever holding more than one line of bounded length.
 */

const NEWLINE = 0x0a;

export class LineSplitter {
  readonly #maxLineBytes: number;
  #parts: Buffer[] = [];
  #heldBytes = 0;

  /** @param maxLineBytes the longest line that is taken, without its newline. */
  constructor(maxLineBytes: number) {
    this.#maxLineBytes = maxLineBytes;
  }

  /** The lines that `chunk` completes, without their newlines. Throws a RangeError where a line gets too long. */
  *push(chunk: Buffer): Generator<Buffer, void, void> {
    let start = 0;
    for (let end = chunk.indexOf(NEWLINE); end !== -1; end = chunk.indexOf(NEWLINE, start)) {
      this.#hold(chunk.subarray(start, end));
      yield this.#take();
      start = end + 1;
    }
    this.#hold(chunk.subarray(start));
  }

  #hold(part: Buffer): void {
    if (this.#heldBytes + part.length > this.#maxLineBytes) {
      this.#take();
      throw new RangeError(`a line is longer than ${this.#maxLineBytes} bytes`);
    }
    if (part.length > 0) this.#parts.push(part);
    this.#heldBytes += part.length;
  }

  #take(): Buffer {
    const line = Buffer.concat(this.#parts, this.#heldBytes);
    this.#parts = [];
    this.#heldBytes = 0;
    return line;
  }
}
