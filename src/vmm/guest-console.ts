/** The guest's console: kept in a file of bounded size for `husk logs --guest`, its last lines in memory for the error that needs them. */
import { closeSync, copyFileSync, openSync, rmSync, writeSync } from "node:fs";
import type { Readable } from "node:stream";
import { Tail } from "../host/tail.ts";

export class GuestConsole {
  readonly tail = new Tail(8 * 1024);
  #path: string;
  #fd: number;
  #room: number;

  /**
   * Reads `stream` until its end. `path`: the log file, made anew. `limitBytes`: how much of it is kept; a guest can write as much as it likes,
   * so the rest is dropped, which the file then says.
   */
  constructor(stream: Readable, path: string, limitBytes: number) {
    this.#path = path;
    this.#fd = openSync(path, "w", 0o600);
    this.#room = limitBytes;
    stream.on("data", (chunk: Buffer) => this.#add(chunk));
    stream.once("close", () => closeSync(this.#fd));
  }

  /** The kernel's word where it panicked, or the last lines. */
  lastWords(): string {
    const lines = this.tail.lines(200);
    const panic = lines.findLast((line) => /Kernel panic|husk-agent.*panic/.test(line));
    return panic ?? lines.slice(-3).join(" | ");
  }

  /** Keeps the console at `path` from now on, with what was said before. */
  moveTo(path: string): void {
    copyFileSync(this.#path, path); // the place may be on another file system
    const fd = openSync(path, "a", 0o600);
    closeSync(this.#fd);
    rmSync(this.#path);
    [this.#fd, this.#path] = [fd, path];
  }

  #add(chunk: Buffer): void {
    this.tail.add(chunk);
    if (this.#room <= 0) return;
    const kept = chunk.subarray(0, this.#room);
    this.#room -= chunk.length;
    writeSync(this.#fd, kept);
    if (this.#room <= 0) writeSync(this.#fd, "\nhusk: the rest of the guest's console was dropped\n");
  }
}
