/** A program that a test has started: its streams, its end, and its end by force. */
import { type ChildProcess, spawn } from "node:child_process";
import { constants } from "node:os";
import type { Writable } from "node:stream";
import { Output, patienceMs } from "./output.ts";

/** One of a program's streams: a pipe that is kept (stdin: that is written to), nothing, a descriptor, or a pipe that the test reads itself. */
export type Stream = "pipe" | "ignore" | "raw" | number;

export interface ProgramOptions {
  readonly stdin?: Stream;
  readonly stdout?: Stream;
  readonly stderr?: Stream;
  /** Further descriptors, from 3 on. */
  readonly extra?: readonly ("pipe" | number)[];
  readonly cwd?: string;
  /** Added to this process's environment. */
  readonly env?: Readonly<Record<string, string>>;
}

export interface Result {
  /** As a shell has it: the exit code, or 128 and the signal. */
  readonly status: number;
  readonly stdout: string;
  readonly stderr: string;
}

export class Program {
  readonly child: ChildProcess;
  readonly stdout: Output | undefined;
  readonly stderr: Output | undefined;
  readonly #what: string;
  readonly #exited: Promise<number>;
  readonly #closed: Promise<number>;

  constructor(command: string, args: readonly string[], options: ProgramOptions = {}) {
    const { stdin = "ignore", stdout = "pipe", stderr = "pipe", extra = [] } = options;
    this.#what = [command, ...args].join(" ");
    this.child = spawn(command, args, {
      stdio: [...[stdin, stdout, stderr].map((stream) => (stream === "raw" ? "pipe" : stream)), ...extra],
      cwd: options.cwd,
      env: { ...process.env, ...options.env },
    });
    this.stdout = stdout === "pipe" && this.child.stdout !== null ? new Output("stdout", this.child.stdout) : undefined;
    this.stderr = stderr === "pipe" && this.child.stderr !== null ? new Output("stderr", this.child.stderr) : undefined;
    this.child.stdin?.on("error", () => {}); // a program need not read its input
    this.#exited = this.#when("exit");
    this.#closed = this.#when("close");
  }

  get pid(): number {
    if (this.child.pid === undefined) throw new Error(`${this.#what} was not started`);
    return this.child.pid;
  }

  get stdin(): Writable {
    if (this.child.stdin === null) throw new Error(`${this.#what} has no stdin`);
    return this.child.stdin;
  }

  get running(): boolean {
    return this.child.exitCode === null && this.child.signalCode === null && this.child.pid !== undefined;
  }

  /** Resolves to its status when it has ended, whoever else still holds its streams. */
  exited(withinMs = patienceMs): Promise<number> {
    return this.#within(this.#exited, withinMs);
  }

  /** Resolves when it has ended and its streams as well. */
  async ended(withinMs = patienceMs): Promise<Result> {
    const status = await this.#within(this.#closed, withinMs);
    return { status, stdout: this.stdout?.text() ?? "", stderr: this.stderr?.text() ?? "" };
  }

  signal(signal: NodeJS.Signals): void {
    this.child.kill(signal);
  }

  #when(event: "exit" | "close"): Promise<number> {
    const { promise, resolve, reject } = Promise.withResolvers<number>();
    this.child.once(event, (code: number | null, signal: NodeJS.Signals | null) =>
      resolve(code ?? 128 + (signal === null ? 0 : constants.signals[signal])),
    );
    this.child.once("error", reject);
    promise.catch(() => {}); // told to whoever waits
    return promise;
  }

  async #within(end: Promise<number>, withinMs: number): Promise<number> {
    const { promise, reject } = Promise.withResolvers<number>();
    const timer = setTimeout(
      () => reject(new Error(`${this.#what} did not end within ${withinMs} ms; stderr: ${JSON.stringify(this.stderr?.text() ?? "")}`)),
      withinMs,
    );
    try {
      return await Promise.race([end, promise]);
    } finally {
      clearTimeout(timer);
    }
  }
}
