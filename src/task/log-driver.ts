/**
 * A log driver: a program that containerd's clients name by binary:///PATH?KEY=VALUE, which reads a task's outputs from descriptors 3 and 4 until they end,
 * and says by closing descriptor 5 that it is ready. It outlives this process.
 */
import { type ChildProcess, spawn } from "node:child_process";
import type { Duplex, Writable } from "node:stream";
import { HuskError } from "../errors.ts";
import { withDeadline } from "../host/deadline.ts";
import type { StdioOwner } from "./stdio.ts";

/** How long a driver may take to say that it is ready, and, after the outputs' ends, to end; as containerd's own shim has it. */
const readyMs = 10_000;
const endMs = 12_000;

export class LogDriver {
  readonly stdout: Writable;
  readonly stderr: Writable;
  readonly #child: ChildProcess;

  /** Starts the program, and waits until it is ready. Throws `invalid-argument`, `host` or `deadline`. */
  static async start(uri: string, owner: StdioOwner): Promise<LogDriver> {
    const { program, args } = parse(uri);
    const child = spawn(program, args, {
      detached: true,
      stdio: ["ignore", "ignore", "ignore", "pipe", "pipe", "pipe"],
      env: { ...process.env, CONTAINER_ID: owner.id, CONTAINER_NAMESPACE: owner.namespace },
    });
    const driver = new LogDriver(child);
    try {
      await withDeadline(isReady(child, program), readyMs, `the log driver ${program}`);
    } catch (error) {
      driver.destroy();
      throw error;
    }
    child.unref();
    return driver;
  }

  private constructor(child: ChildProcess) {
    this.#child = child;
    const [, , , stdout, stderr] = child.stdio as unknown as [null, null, null, Duplex, Duplex];
    this.stdout = stdout;
    this.stderr = stderr;
    for (const stream of [stdout, stderr]) {
      stream.on("error", () => {}); // a driver that ended: `close` follows
      stream.on("end", () => stream.destroy()); // it sends nothing: its end means that nobody reads
      stream.resume();
    }
  }

  /** Ends its inputs; a driver that then does not end is ended. */
  end(): void {
    this.stdout.end();
    this.stderr.end();
    const late = setTimeout(() => this.#child.kill("SIGTERM"), endMs).unref();
    this.#child.once("exit", () => clearTimeout(late));
  }

  destroy(): void {
    this.#child.kill("SIGKILL");
    this.stdout.destroy();
    this.stderr.destroy();
  }
}

/** Resolves when the driver has closed its descriptor 5, or written to it; rejects where it cannot be started, or ends first. */
function isReady(child: ChildProcess, program: string): Promise<void> {
  const ready = (child.stdio as readonly unknown[])[5] as Duplex;
  return new Promise((resolve, reject) => {
    child.once("error", (cause) => reject(new HuskError("host", `cannot start the log driver ${program}`, { cause })));
    child.once("exit", (code, signal) =>
      reject(new HuskError("host", `the log driver ${program} ended at once: ${signal ?? `status ${code}`}`)),
    );
    ready.on("error", () => {}); // `close` follows
    const done = (): void => {
      ready.destroy();
      resolve();
    };
    ready.once("data", done);
    // A driver that dies closes it as well; its exit is told first only if it is waited for.
    ready.once("close", () => setImmediate(done));
  });
}

/** The program and its arguments: each key of the query, followed by its value, in their order. */
function parse(uri: string): { program: string; args: string[] } {
  let url: URL;
  try {
    url = new URL(uri);
  } catch (cause) {
    throw new HuskError("invalid-argument", `stdout: ${JSON.stringify(uri.slice(0, 200))} is no URI`, { cause });
  }
  if (!url.pathname.startsWith("/") || url.pathname === "/") {
    throw new HuskError("invalid-argument", `stdout: ${JSON.stringify(uri.slice(0, 200))} names no program`);
  }
  const args = [...url.searchParams].flatMap(([key, value]) => (value === "" ? [key] : [key, value]));
  return { program: decodeURIComponent(url.pathname), args };
}
