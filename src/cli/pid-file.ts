/** The file of --pid-file: engines wait for it to appear, so it appears with the PID in it. */
import { closeSync, openSync, renameSync, rmSync, writeSync } from "node:fs";
import { dirname, join } from "node:path";
import { HuskError } from "../errors.ts";

/** How many this process has made: a supervisor writes the files of several calls at once. */
let drafts = 0;

/** A PID file about to be written: that it can be written is known before there is a process to lose. */
export class PidFile implements Disposable {
  readonly #path: string;
  readonly #draft: string;
  readonly #descriptor: number;
  #open = true;

  /** Throws `host` where the file cannot be written. */
  constructor(path: string) {
    this.#path = path;
    this.#draft = join(dirname(path), `.husk-pid-${process.pid}-${drafts++}`);
    try {
      this.#descriptor = openSync(this.#draft, "w", 0o644);
    } catch (cause) {
      throw new HuskError("host", `cannot write the PID file ${path}`, { cause });
    }
  }

  /** Makes the file appear. Throws `host`. */
  write(pid: number): void {
    try {
      writeSync(this.#descriptor, String(pid)); // without a line feed, as runc does
      renameSync(this.#draft, this.#path);
    } catch (cause) {
      throw new HuskError("host", `cannot write the PID file ${this.#path}`, { cause });
    } finally {
      this[Symbol.dispose]();
    }
  }

  /** Leaves nothing behind where it was never written. */
  [Symbol.dispose](): void {
    if (!this.#open) return;
    this.#open = false;
    closeSync(this.#descriptor);
    rmSync(this.#draft, { force: true });
  }
}
