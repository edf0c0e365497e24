/**
 * A task's standard streams as containerd names them: FIFOs of the client's, files, or a log driver's program.
 * containerd, docs/... runtime/v2 "I/O": https://github.com/containerd/containerd/blob/main/core/runtime/v2/README.md
 */
import { closeSync, constants, createWriteStream, fstatSync, mkdirSync, openSync } from "node:fs";
import { Socket } from "node:net";
import { dirname, isAbsolute } from "node:path";
import type { Readable, Writable } from "node:stream";
import { HuskError } from "../errors.ts";
import { deferred } from "../host/deferred.ts";
import type { ProcessStreams } from "../sandbox/guest-process.ts";
import { LogDriver } from "./log-driver.ts";

/** What a request names; "" is no stream. */
export interface StdioNames {
  readonly stdin: string;
  readonly stdout: string;
  readonly stderr: string;
  readonly terminal: boolean;
}

/** Whose streams they are: log drivers are told. */
export interface StdioOwner {
  readonly namespace: string;
  readonly id: string;
}

export class TaskStdio {
  readonly streams: ProcessStreams;
  readonly #outputs: readonly Writable[];
  readonly #stdin: string;
  readonly #source = deferred<Readable>();
  #input: FifoInput | undefined;
  #stdinClosed = false;
  #closed = false;
  readonly #driver: LogDriver | undefined;

  /** Opens the streams. Throws `invalid-argument` or `host`, with all closed again. */
  static async open(names: StdioNames, owner: StdioOwner): Promise<TaskStdio> {
    const opened: { destroy(): void }[] = [];
    const keep = <T extends { destroy(): void }>(stream: T): T => {
      opened.push(stream);
      return stream;
    };
    try {
      const stderr = names.terminal ? "" : names.stderr; // a terminal has one output
      const driver = isDriver(names.stdout) || isDriver(stderr) ? keep(await LogDriver.start(names.stdout || stderr, owner)) : undefined;
      const output = (name: string, ofDriver: Writable | undefined): Writable | undefined =>
        name === "" ? undefined : isDriver(name) ? ofDriver : keep(openOutput(name));
      const out = output(names.stdout, driver?.stdout);
      const err = output(stderr, driver?.stderr);
      return new TaskStdio(names.stdin, out, err, driver);
    } catch (error) {
      for (const stream of opened) stream.destroy();
      throw error;
    }
  }

  private constructor(stdin: string, stdout: Writable | undefined, stderr: Writable | undefined, driver: LogDriver | undefined) {
    this.#stdin = stdin;
    this.#outputs = [stdout, stderr].filter((stream) => stream !== undefined);
    this.#driver = driver;
    this.streams = {
      ...(stdin === "" ? {} : { stdin: this.#source.promise }),
      ...(stdout === undefined ? {} : { stdout: Promise.resolve(stdout) }),
      ...(stderr === undefined ? {} : { stderr: Promise.resolve(stderr) }),
    };
  }

  /**
   * Opens the standard input, at the process's start: a client's first write waits for that. One whose input ended before the task existed could not say so
   * (CloseIO needs a task), and the process would wait for the end for ever. Throws `host`.
   */
  openStdin(): void {
    if (this.#stdin === "" || this.#input !== undefined || this.#closed) return;
    this.#input = openInput(this.#stdin);
    if (this.#stdinClosed) this.#input.release();
    this.#source.resolve(this.#input.stream);
  }

  /** No client will write to the standard input any more: the process reads its end once everybody who has it open has closed it. */
  closeStdin(): void {
    this.#stdinClosed = true;
    this.#input?.release();
  }

  /** Gives up what is still open. A log driver goes on until it has read everything. */
  close(): void {
    this.#closed = true;
    this.#source.reject(new HuskError("wrong-state", "the process has ended"));
    this.#input?.destroy();
    for (const output of this.#outputs) output.destroy();
    this.#driver?.end();
  }
}

/** The reading end of a client's FIFO, with a writing end of our own that keeps it from ending when a client goes away to come back. */
class FifoInput {
  readonly stream: Readable;
  #keeper: number | undefined;

  constructor(path: string) {
    const reader = openSync(path, constants.O_RDONLY | constants.O_NONBLOCK);
    try {
      this.#keeper = openSync(path, constants.O_WRONLY | constants.O_NONBLOCK);
    } catch (error) {
      closeSync(reader);
      throw error;
    }
    this.stream = new Socket({ fd: reader, readable: true, writable: false });
    this.stream.on("error", () => {}); // `close` follows
    this.stream.on("close", () => this.release());
  }

  release(): void {
    if (this.#keeper !== undefined) closeSync(this.#keeper);
    this.#keeper = undefined;
  }

  destroy(): void {
    this.release();
    this.stream.destroy();
  }
}

function isDriver(name: string): boolean {
  return name.startsWith("binary://");
}

function openInput(path: string): FifoInput {
  try {
    return new FifoInput(checkPath("stdin", path));
  } catch (cause) {
    throw cause instanceof HuskError ? cause : new HuskError("host", `stdin: cannot open ${path}`, { cause });
  }
}

/** A FIFO, or a file to append to. */
function openOutput(name: string): Writable {
  try {
    if (name.startsWith("file://")) return appendTo(checkPath("stdout", decodeURIComponent(new URL(name).pathname)));
    const path = checkPath("stdout", name);
    // For reading, too: then a client that goes away, and comes back, is no broken pipe to the container.
    const fd = openSync(path, constants.O_RDWR | constants.O_NONBLOCK);
    if (!fstatSync(fd).isFIFO()) {
      closeSync(fd);
      return appendTo(path);
    }
    const stream = new Socket({ fd, readable: false, writable: true });
    stream.on("error", () => {}); // `close` follows
    return stream;
  } catch (cause) {
    throw cause instanceof HuskError ? cause : new HuskError("host", `cannot open the output ${name}`, { cause });
  }
}

function appendTo(path: string): Writable {
  mkdirSync(dirname(path), { recursive: true, mode: 0o755 });
  const stream = createWriteStream(path, { fd: openSync(path, "a", 0o644) });
  stream.on("error", () => {}); // a full disk: `close` follows, and the process gets EPIPE
  return stream;
}

function checkPath(what: string, path: string): string {
  if (!isAbsolute(path)) {
    throw new HuskError(
      "invalid-argument",
      `${what}: ${JSON.stringify(path.slice(0, 200))} is neither an absolute path, nor file://, nor binary://`,
    );
  }
  return path;
}
