/**
 * A real pipe that a test writes to. Node's own are sockets, and it closes a child's standard input when the child ends, whoever else reads it by then.
 */
import { execFileSync } from "node:child_process";
import { closeSync, constants, openSync, rmSync, writeSync } from "node:fs";

export class Feed {
  /** To be handed to a program as one of its descriptors. */
  readonly reader: number;
  #writer: number | undefined;

  /** `path`: where the pipe has its name for a moment. */
  constructor(path: string) {
    execFileSync("mkfifo", [path]);
    const both = openSync(path, constants.O_RDWR); // opens without a peer
    this.reader = openSync(path, constants.O_RDONLY);
    this.#writer = openSync(path, constants.O_WRONLY);
    closeSync(both);
    rmSync(path);
  }

  write(text: string): void {
    if (this.#writer === undefined) throw new Error("the pipe has been ended");
    writeSync(this.#writer, text);
  }

  /** The end of file for whoever reads. */
  end(): void {
    if (this.#writer !== undefined) closeSync(this.#writer);
    this.#writer = undefined;
  }

  close(): void {
    this.end();
    closeSync(this.reader);
  }
}
