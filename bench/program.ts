/** Runs programs and takes their time. */
import { spawn } from "node:child_process";

export interface Timing {
  /** From the start to the end of each of the words that were waited for, in the order in which they were given. */
  readonly marks: readonly number[];
  readonly endMs: number;
  readonly output: string;
}

export interface ProgramOptions {
  /** Words whose arrival on standard output is timed, each after the one before. */
  readonly until?: readonly string[];
  readonly env?: NodeJS.ProcessEnv;
  /** Neither output is read, as for a program that leaves one behind with both open. */
  readonly silent?: boolean;
}

/** Runs a program to its end. Throws, with what it said, where it fails or does not print what was waited for. */
export async function time(command: string, args: readonly string[], options: ProgramOptions = {}): Promise<Timing> {
  const { until = [] } = options;
  const { promise, resolve, reject } = Promise.withResolvers<number | null>();
  const began = performance.now();
  const stream = options.silent === true ? "ignore" : "pipe";
  const child = spawn(command, args, { stdio: ["ignore", stream, stream], env: options.env ?? process.env });
  const marks: number[] = [];
  let output = "";
  let errors = "";
  let seen = 0;
  child.stdout?.on("data", (chunk: Buffer) => {
    output += chunk.toString();
    for (let word = until[marks.length]; word !== undefined; word = until[marks.length]) {
      const at = output.indexOf(word, seen);
      if (at === -1) break;
      seen = at + word.length;
      marks.push(performance.now() - began);
    }
  });
  child.stderr?.on("data", (chunk: Buffer) => {
    errors += chunk.toString();
  });
  child.on("error", reject);
  child.on("close", resolve);
  const status = await promise;
  const endMs = performance.now() - began;
  if (status !== 0 || marks.length < until.length) {
    throw new Error(`${command} ${args.join(" ")} ended with ${status}: ${(errors || output).trim().split("\n").at(-1) ?? ""}`);
  }
  return { marks, endMs, output };
}

/** How long a program runs, in milliseconds. */
export async function duration(command: string, args: readonly string[], options: ProgramOptions = {}): Promise<number> {
  return (await time(command, args, options)).endMs;
}
