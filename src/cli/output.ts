/** Standard output and text for people. */
import { writeSync } from "node:fs";
import { hasCode } from "../host/system-error.ts";

/** Prints to standard output. */
export function print(text: string): void {
  write(1, text);
}

/** Prints to standard error. */
export function complain(text: string): void {
  write(2, text);
}

/** Without process.stdout and process.stderr, whose making costs a tenth of a short command's time, wherever they are not needed. */
function write(descriptor: 1 | 2, text: string): void {
  let rest: Uint8Array = Buffer.from(text);
  try {
    while (rest.length > 0) rest = rest.subarray(writeSync(descriptor, rest));
  } catch (error) {
    if (hasCode(error, "EPIPE", "EBADF")) return; // nobody reads on, as in `husk list | head -1`, or nobody ever did
    if (!hasCode(error, "EAGAIN")) throw error;
    (descriptor === 1 ? process.stdout : process.stderr).write(rest); // a pipe that somebody made non-blocking, and that is full
  }
}

/** Columns as Go's tabwriter makes them for runc: at least 12 wide, 3 apart. */
export function table(rows: readonly (readonly string[])[], leastWidth = 12, gap = 3): string {
  const widths: number[] = [];
  for (const row of rows) {
    for (const [column, cell] of row.entries()) widths[column] = Math.max(widths[column] ?? leastWidth, cell.length + gap);
  }
  const lines = rows.map((row) =>
    row
      .map((cell, column) => (column === row.length - 1 ? cell : cell.padEnd(widths[column] ?? 0)))
      .join("")
      .trimEnd(),
  );
  return lines.map((line) => `${line}\n`).join("");
}
