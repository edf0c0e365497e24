/** A file of a checkpoint that somebody else says the content of. */
import { createHash } from "node:crypto";
import { writeSync } from "node:fs";

/** How much may come, and what is thrown where it is more. */
export interface Bound {
  readonly bytes: number;
  readonly exceeded: () => Error;
}

/** Writes what comes to `file`, up to the end, and answers its SHA-256. */
export async function receive(chunks: AsyncIterable<Buffer>, file: number, bound: Bound): Promise<string> {
  const hash = createHash("sha256");
  let bytes = 0;
  for await (const chunk of chunks) {
    bytes += chunk.length;
    if (bytes > bound.bytes) throw bound.exceeded();
    hash.update(chunk);
    for (let at = 0; at < chunk.length; ) at += writeSync(file, chunk, at);
  }
  return hash.digest("hex");
}
