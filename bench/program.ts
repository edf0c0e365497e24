/** Runs programs and takes their time. */
import { spawn } from "node:child_process";

export interface Timing {
  /** From the start to the first bytes of standard output that hold what was waited for; the end where nothing was. */
  readonly firstOutputMs: number;
  readonly endMs: number;
  readonly output: string;
}

export interface ProgramOptions {
  /** The words whose arrival on standard output is timed. */
  readonly until?: string;
  readonly env?: NodeJS.ProcessEnv;
  /** Neither output is read, as for a program that leaves one behind with both open. */
  readonly silent?: boolean;
  /** The exit statuses that are no failure; 0 alone where it is absent. */
  readonly statuses?: readonly number[];
}

/** Runs a program to its end. Throws, with what it said, where it fails or does not print what was waited for. */
export async function time(command: string, args: readonly string[], options: ProgramOptions = {}): Promise<Timing> {
  const { until, statuses = [0] } = options;
  const { promise, resolve, reject } = Promise.withResolvers<number | null>();
  const began = performance.now();
  const stream = options.silent === true ? "ignore" : "pipe";
  const child = spawn(command, args, { stdio: ["ignore", stream, stream], env: options.env ?? process.env });
  let output = "";
  let errors = "";
  let firstOutputMs: number | undefined;
  child.stdout?.on("data", (chunk: Buffer) => {
    output += chunk.toString();
    if (until !== undefined && output.includes(until)) firstOutputMs ??= performance.now() - began;
  });
  child.stderr?.on("data", (chunk: Buffer) => {
    errors += chunk.toString();
  });
  child.on("error", reject);
  child.on("close", resolve);
  const status = await promise;
  const endMs = performance.now() - began;
  if (status === null || !statuses.includes(status) || (until !== undefined && firstOutputMs === undefined)) {
    throw new Error(`${command} ${args.join(" ")} ended with ${status}: ${(errors || output).trim().split("\n").at(-1) ?? ""}`);
  }
  return { firstOutputMs: firstOutputMs ?? endMs, endMs, output };
}
