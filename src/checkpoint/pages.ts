/** What the helper does with a machine's memory and its disks: they are too large for Node to look at each byte (`husk-helper template`). */
import { spawn } from "node:child_process";
import { closeSync, openSync } from "node:fs";
import type { Readable } from "node:stream";
import { text } from "node:stream/consumers";
import { HuskError } from "../errors.ts";

/** What was saved: its sum, and how many bytes were written. */
export interface Saved {
  readonly sum: string;
  readonly writtenBytes: number;
}

/**
 * Copies what is not all zeroes from one open file to another. `packed`: without the holes between; `give-back`: the source's own zeroes become holes.
 * Throws `host`.
 */
export async function savePages(helper: string, from: number, to: number, how: readonly ("packed" | "give-back")[]): Promise<Saved> {
  const args = ["template", "save", "--from", "3", "--to", "4", ...how.map((word) => `--${word}`)];
  const [sum = "", written = ""] = (await run(helper, args, [from, to])).split(" ");
  return { sum, writtenBytes: Number(written) };
}

/** The sum of a file's pages. Throws `host`. */
export async function sumOf(helper: string, path: string): Promise<string> {
  const file = openSync(path, "r");
  try {
    return await run(helper, ["template", "sum", "--from", "3"], [file]);
  } finally {
    closeSync(file);
  }
}

/** Runs the helper, which has `files` from descriptor 3 on, and answers what it prints. */
async function run(helper: string, args: readonly string[], files: readonly number[]): Promise<string> {
  const child = spawn(helper, args, { stdio: ["ignore", "pipe", "pipe", ...files] });
  const ended = new Promise<number | null>((resolve, reject) => {
    child.once("error", reject);
    child.once("exit", resolve);
  });
  const [code, printed, complaint] = await Promise.all([ended, text(child.stdout as Readable), text(child.stderr as Readable)]);
  if (code !== 0) throw new HuskError("host", "the helper could not copy", { cause: complaint.trim().replace(/^husk: /, "") });
  return printed.trim();
}
