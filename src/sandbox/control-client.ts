/** A client of a supervisor's control socket (control.ts says what goes over it). */
import { connect, type Socket } from "node:net";
import { type ErrorCode, HuskError, meaningOf } from "../errors.ts";
import { type Deferred, deferred } from "../host/deferred.ts";
import { readJsonLines, writeJsonLine } from "../host/lines.ts";
import { hasCode } from "../host/system-error.ts";
import type { ControlMethod, Params } from "./control.ts";
import { readRecord } from "./record.ts";
import { type RunFolder, runFolder, shortPath } from "./run-folder.ts";

/** How long a call may take unless it says otherwise, in milliseconds: what it asks of the guest has a shorter bound of its own. */
const callDeadlineMs = 30_000;

export interface CallOptions {
  readonly deadlineMs?: number;
  readonly signal?: AbortSignal;
}

export class ControlClient implements Disposable {
  /** Settles when the connection has ended, for whatever reason: the supervisor died, or closed it, or we did. */
  readonly closed: Promise<void>;

  readonly #id: string;
  readonly #socket: Socket;
  readonly #calls = new Map<number, Deferred<Params>>();
  #nextCall = 1;

  /**
   * Connects to the supervisor of a container. Throws `not-found` where there is no such container, `wrong-state` where it is stopped
   * (nobody listens then) or not yet created.
   */
  static async connect(root: string, id: string): Promise<ControlClient> {
    const folder = runFolder(root, id);
    try {
      return new ControlClient(id, await dial(folder));
    } catch (cause) {
      throw unreachable(root, id, cause);
    }
  }

  private constructor(id: string, socket: Socket) {
    this.#id = id;
    this.#socket = socket;
    this.closed = new Promise((resolve) => socket.once("close", () => resolve()));
    readJsonLines(
      socket,
      `the supervisor of container "${id}"`,
      (message) => this.#onAnswer(message),
      (cause) => this.#onEnd(cause),
    );
  }

  /** Calls the supervisor. Rejects with its error, or with `deadline`, or `internal` where it vanished before it answered. */
  async call(method: ControlMethod, params: Params = {}, options: CallOptions = {}): Promise<Params> {
    const { deadlineMs = callDeadlineMs, signal } = options;
    signal?.throwIfAborted();
    const id = this.#nextCall++;
    const answer = deferred<Params>();
    const timer = setTimeout(
      () =>
        answer.reject(
          new HuskError("deadline", `the supervisor of container "${this.#id}" did not answer "${method}" within ${deadlineMs} ms`),
        ),
      deadlineMs,
    );
    const onAbort = (): void => answer.reject(signal?.reason instanceof Error ? signal.reason : new Error("aborted"));
    signal?.addEventListener("abort", onAbort, { once: true });
    this.#calls.set(id, answer);
    try {
      if (this.#socket.destroyed || !this.#socket.writable) throw this.#vanished();
      writeJsonLine(this.#socket, { id, call: method, params });
      return await answer.promise;
    } finally {
      clearTimeout(timer);
      signal?.removeEventListener("abort", onAbort);
      this.#calls.delete(id);
    }
  }

  close(): void {
    this.#socket.destroy();
  }

  [Symbol.dispose](): void {
    this.close();
  }

  #onAnswer(message: Params): void {
    const { id, result, error } = message;
    const call = typeof id === "number" ? this.#calls.get(id) : undefined;
    if (call === undefined) return; // the answer to a call that was given up
    if (isObject(error)) call.reject(new HuskError(errorCode(error["code"]), String(error["message"])));
    else call.resolve(isObject(result) ? result : {});
  }

  #onEnd(cause: Error | undefined): void {
    for (const call of this.#calls.values()) call.reject(this.#vanished(cause));
    this.#socket.destroy();
  }

  #vanished(cause?: Error): HuskError {
    return new HuskError("internal", `the supervisor of container "${this.#id}" is gone`, cause === undefined ? {} : { cause });
  }
}

function dial(folder: RunFolder): Promise<Socket> {
  const short = shortPath(folder.socket);
  return new Promise<Socket>((resolve, reject) => {
    const socket = connect({ path: short.path });
    socket.once("error", reject);
    socket.once("connect", () => {
      socket.off("error", reject);
      resolve(socket);
    });
  }).finally(short.release);
}

/** Why nobody answered, from what the record says. */
function unreachable(root: string, id: string, cause: unknown): Error {
  if (!hasCode(cause, "ENOENT", "ECONNREFUSED"))
    return new HuskError("host", `cannot reach the supervisor of container "${id}"`, { cause });
  const { status } = readRecord(root, id); // throws not-found
  if (status === "stopped") return new HuskError("wrong-state", `container "${id}" is stopped`);
  if (status === "creating") return new HuskError("wrong-state", `container "${id}" is still being created`);
  return new HuskError("internal", `the supervisor of container "${id}" does not listen`, { cause });
}

function errorCode(value: unknown): ErrorCode {
  return typeof value === "string" && Object.hasOwn(meaningOf, value) ? (value as ErrorCode) : "internal";
}

function isObject(value: unknown): value is Params {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}
