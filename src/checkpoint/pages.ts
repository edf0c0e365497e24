/** What the helper does with a machine's memory and its disks: they are too large for Node to look at each byte (`husk-helper template`). */
import { spawn } from "node:child_process";
import { closeSync, openSync, statSync } from "node:fs";
import type { Readable } from "node:stream";
import { text } from "node:stream/consumers";
import { HuskError } from "../errors.ts";

/** What was saved: its sum, and how many bytes were written. */
export interface Saved {
  readonly sum: string;
  readonly writtenBytes: number;
}

/** Where a guest's memory is: in a file; of which a process may have a private mapping, and then the memory is as that process has it. */
export interface GuestMemory {
  /** It can be opened as long as QEMU lives. */
  readonly path: string;
  readonly mappedBy: number | null;
}

/**
 * Writes a guest's memory that is not all zeroes to an open file, packed. `giveBack`: pages of zeroes go back to the host, where they are in the guest's own
 * file: nobody but QEMU could give back a page of its private mapping. Throws `host`.
 */
export async function saveMemory(helper: string, { path, mappedBy }: GuestMemory, to: number, giveBack: boolean): Promise<Saved> {
  const from = openSync(path, "r+");
  try {
    if (mappedBy === null) return await savePages(helper, from, to, giveBack ? ["packed", "give-back"] : ["packed"]);
    return await savePages(helper, from, to, ["packed"], ["--process", String(mappedBy)]);
  } finally {
    closeSync(from);
  }
}

/** How many bytes of a guest's memory the host holds. Throws `host`. */
export async function residentBytes(helper: string, { path, mappedBy }: GuestMemory): Promise<bigint> {
  if (mappedBy === null) return BigInt(statSync(path).blocks) * 512n;
  const file = openSync(path, "r");
  try {
    return BigInt(await run(helper, ["template", "resident", "--from", "3", "--process", String(mappedBy)], [file]));
  } finally {
    closeSync(file);
  }
}

/**
 * Copies what is not all zeroes from one open file to another. `packed`: without the holes between; `give-back`: the source's own zeroes become holes.
 * Throws `host`.
 */
export async function savePages(
  helper: string,
  from: number,
  to: number,
  how: readonly ("packed" | "give-back")[],
  more: readonly string[] = [],
): Promise<Saved> {
  const args = ["template", "save", "--from", "3", "--to", "4", ...how.map((word) => `--${word}`), ...more];
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
