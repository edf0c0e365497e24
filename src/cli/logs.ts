/** `husk logs`: the supervisor's log, or the guest's console, from the run folder; with --follow as they grow, until the sandbox ends. */
import { closeSync, fstatSync, openSync, readSync, watch } from "node:fs";
import { HuskError } from "../errors.ts";
import { printable } from "../host/printable.ts";
import { hasCode } from "../host/system-error.ts";
import { ControlClient } from "../sandbox/control-client.ts";
import { readRecord } from "../sandbox/record.ts";
import { runFolder } from "../sandbox/run-folder.ts";
import type { Invocation } from "./command-line.ts";
import { print } from "./output.ts";

const chunkBytes = 64 * 1024;

export async function logs({ globals, flags, operands: [id = ""] }: Invocation<"logs">): Promise<void> {
  readRecord(globals.root, id); // throws not-found
  const folder = runFolder(globals.root, id);
  const tail = new GrowingFile(flags.guest ? folder.console : folder.supervisorLog, print);
  tail.readOn();
  if (flags.follow) await follow(globals.root, id, folder.path, tail);
  tail.close();
}

/** Reads on with every change in the run folder, until the supervisor is gone. */
async function follow(root: string, id: string, folder: string, tail: GrowingFile): Promise<void> {
  let client: ControlClient;
  try {
    client = await ControlClient.connect(root, id);
  } catch (error) {
    if (error instanceof HuskError && (error.code === "wrong-state" || error.code === "not-found")) return; // it has ended: all is read
    throw error;
  }
  const watcher = watch(folder, () => tail.readOn());
  watcher.on("error", () => {}); // the folder is gone, and the supervisor with it
  tail.readOn(); // for what came before the watch
  await client.closed;
  watcher.close();
  tail.readOn();
}

/** A file that others write to, the end of it, or to which they begin anew. */
export class GrowingFile {
  readonly #path: string;
  readonly #write: (text: string) => void;
  readonly #decoder = new TextDecoder();
  #descriptor: number | undefined;
  #offset = 0;

  /** `write` gets the text without what would command a terminal: it is a guest's. */
  constructor(path: string, write: (text: string) => void) {
    this.#path = path;
    this.#write = write;
  }

  /** Writes what has come since the last time. A file that does not exist yet has nothing. */
  readOn(): void {
    this.#descriptor ??= openIfThere(this.#path);
    if (this.#descriptor === undefined) return;
    if (fstatSync(this.#descriptor).size < this.#offset) this.#offset = 0;
    const buffer = Buffer.alloc(chunkBytes);
    for (;;) {
      const length = readSync(this.#descriptor, buffer, 0, chunkBytes, this.#offset);
      if (length === 0) return;
      this.#offset += length;
      this.#write(printable(this.#decoder.decode(buffer.subarray(0, length), { stream: true })));
    }
  }

  close(): void {
    if (this.#descriptor !== undefined) closeSync(this.#descriptor);
    this.#descriptor = undefined;
  }
}

function openIfThere(path: string): number | undefined {
  try {
    return openSync(path, "r");
  } catch (cause) {
    if (hasCode(cause, "ENOENT")) return undefined;
    throw new HuskError("host", `cannot read ${path}`, { cause });
  }
}
