/** JSON objects, one a line, over a stream whose other end may be hostile: bounded, and every complaint names the peer. */
import type { Duplex, Readable } from "node:stream";
import { HuskError } from "../errors.ts";

/** The longest line that a peer may send, in bytes. */
export const maxLineBytes = 1024 * 1024;

/**
 * Calls `onMessage` for each line of `stream`, parsed. A line that is too long, or that is not a JSON object, ends the stream with an error.
 * `onEnd` is called once, with the reason where there is one.
 */
export function readJsonLines(
  stream: Readable,
  peer: string,
  onMessage: (message: Readonly<Record<string, unknown>>) => void,
  onEnd: (error?: Error) => void,
): void {
  let rest = "";
  let ended = false;
  const end = (error?: Error): void => {
    if (ended) return;
    ended = true;
    onEnd(error);
  };
  stream.setEncoding("utf8");
  stream.on("data", (chunk: string) => {
    if (ended) return;
    const lines = (rest + chunk).split("\n");
    rest = lines.pop() ?? "";
    for (const line of lines) {
      const message = parseObject(line);
      if (message === undefined) {
        end(new HuskError("internal", `${peer} sent a line that is no JSON object: ${line.slice(0, 200)}`));
        stream.destroy();
        return;
      }
      onMessage(message);
    }
    if (rest.length > maxLineBytes) {
      end(new HuskError("internal", `${peer} sent a line of more than ${maxLineBytes} bytes`));
      stream.destroy();
    }
  });
  stream.on("error", end);
  stream.on("end", () => end());
  stream.on("close", () => end());
}

/** Writes one object as a line. */
export function writeJsonLine(stream: Duplex, message: object): void {
  stream.write(`${JSON.stringify(message)}\n`);
}

function parseObject(line: string): Record<string, unknown> | undefined {
  try {
    const value: unknown = JSON.parse(line);
    return typeof value === "object" && value !== null && !Array.isArray(value) ? (value as Record<string, unknown>) : undefined;
  } catch {
    return undefined;
  }
}
