/** How long a stand-in may take to get to its place before it is given up, in milliseconds: it enters namespaces and writes its PID. */
export const placeMs = 2_000;

/**
 * The supervisor's side of a stand-in: the process on the host whose PID stands for a process in the guest, and which carries the standard
 * streams that it inherited. guest-agent/helper/PROTOCOL.md has the messages.
 */
import { randomBytes } from "node:crypto";
import type { Socket } from "node:net";
import { HuskError } from "../errors.ts";
import { type Deferred, deferred } from "../host/deferred.ts";
import { readJsonLines, writeJsonLine } from "../host/lines.ts";

export type StreamName = "stdin" | "stdout" | "stderr";

export interface WindowSize {
  readonly rows: number;
  readonly columns: number;
}

/** Where the stand-in is to be, and what it carries. */
export interface Placement {
  readonly netns: string | null;
  readonly rootfs: string | null;
  /** The process whose namespaces of names, IPC and cgroups it shares; null: it gets its own, with these names in them, or the host's. */
  readonly beside: number | null;
  readonly names?: { readonly hostname?: string; readonly domainname?: string };
  readonly cgroups: readonly string[];
  readonly streams: readonly StreamName[];
  readonly terminal: boolean;
  readonly consoleSocket: string | null;
  readonly size: WindowSize | null;
  /** The words of the process that it stands for, which ps shows as its own. */
  readonly title: readonly string[];
}

/** The title of the stand-in of a process: the words of its process object, which is JSON. */
export function titleOf(processJson: string): readonly string[] {
  return (JSON.parse(processJson) as { readonly args?: readonly string[] }).args ?? [];
}

/** How a process ended: a code, or the signal that killed it. */
export type ProcessEnd = { readonly code: number } | { readonly signal: number };

/** What the stand-in passes on. */
export interface StandInEvents {
  readonly signal: (signal: number) => void;
  readonly resize: (size: WindowSize) => void;
  /** The stand-in is gone without having been told to: whoever had its PID killed it. */
  readonly lost: () => void;
}

export class StandIn {
  /** What the stand-in must show when it dials. */
  readonly token = randomBytes(16).toString("hex");
  readonly #pid = deferred<number>();
  readonly #placed = deferred<WindowSize | null>();
  readonly #streams: Record<StreamName, Deferred<Socket>> = { stdin: deferred(), stdout: deferred(), stderr: deferred() };
  readonly #events: StandInEvents;
  #control: Socket | undefined;
  #lastWord: object | undefined;

  constructor(events: StandInEvents) {
    this.#events = events;
  }

  /** Its PID on the host, once it has dialled. */
  get pid(): Promise<number> {
    return this.#pid.promise;
  }

  /** Those of its streams, each once it has dialled. */
  streams(names: readonly StreamName[]): Partial<Record<StreamName, Promise<Socket>>> {
    return Object.fromEntries(names.map((name) => [name, this.#streams[name].promise]));
  }

  /** Takes over a connection that showed this stand-in's token. */
  attach(stream: "control" | StreamName, socket: Socket, pid: number | undefined): void {
    if (stream !== "control") {
      if (stream !== "stdin") watchReader(socket);
      this.#streams[stream].resolve(socket);
      return;
    }
    if (this.#control !== undefined || pid === undefined) {
      socket.destroy();
      return;
    }
    this.#control = socket;
    socket.on("error", () => {}); // `end` follows
    readJsonLines(
      socket,
      "the stand-in",
      (message) => this.#onMessage(message),
      () => this.#onEnd(),
    );
    this.#pid.resolve(pid);
    if (this.#lastWord !== undefined) this.#sendLastWord(this.#lastWord);
  }

  /** Sends it to its place. Resolves to the terminal's size where it has one. Throws `host` where it cannot get there. */
  async place(placement: Placement): Promise<WindowSize | null> {
    await this.pid;
    this.#send({ op: "place", signals: true, ...placement });
    return this.#placed.promise;
  }

  /** Has it write words of husk's own to its standard error. */
  say(text: string): void {
    this.#send({ op: "say", text });
  }

  /** Lets it end as the process did. `stays`: the supervisor does not end then, so that who waits for that need not. */
  exit(end: ProcessEnd, stays = false): void {
    this.#release({ op: "exit", ...end, ...(stays && { stays }) });
  }

  /** Lets it end with a message of husk's own, where its process never ran or its caller is to know why it ended. */
  fail(message: string, status: number, stays = false): void {
    this.#release({ op: "fail", message, status, ...(stays && { stays }) });
    this.#endStreams();
  }

  /** Lets it end with a status, where its process never ran and somebody else has said why. */
  abandon(status: number): void {
    this.#release({ op: "exit", code: status });
    this.#endStreams();
  }

  /** Nobody will dial, unless somebody has: whoever was to is gone. */
  giveUp(): void {
    if (this.#control !== undefined) return;
    const gone = new HuskError("host", "the process that was to stand in is gone");
    this.#pid.reject(gone);
    for (const stream of Object.values(this.#streams)) stream.reject(gone);
  }

  /** It waits for its streams' ends, which come with its process's, and from nobody where there is none. */
  #endStreams(): void {
    for (const stream of Object.values(this.#streams)) {
      stream.promise.then(
        (socket) => socket.destroySoon(),
        () => {}, // it never dialled
      );
    }
  }

  #release(message: object): void {
    if (this.#lastWord !== undefined) return;
    this.#lastWord = message;
    this.#sendLastWord(message);
  }

  /** One that has not dialled yet hears it when it does. */
  #sendLastWord(message: object): void {
    this.#send(message);
    this.#control?.end();
  }

  #send(message: object): void {
    if (this.#control?.writable === true) writeJsonLine(this.#control, message);
  }

  #onMessage(message: Readonly<Record<string, unknown>>): void {
    const size = windowSize(message["size"]);
    if (message["op"] === "placed") this.#placed.resolve(size);
    else if (message["op"] === "failed") this.#placed.reject(new HuskError("host", String(message["message"])));
    else if (message["op"] === "signal" && typeof message["signal"] === "number") this.#events.signal(message["signal"]);
    else if (message["op"] === "resize" && size !== null) this.#events.resize(size);
  }

  #onEnd(): void {
    const gone = new HuskError("host", "the stand-in process is gone");
    this.#placed.reject(gone);
    for (const stream of Object.values(this.#streams)) stream.reject(gone);
    if (this.#lastWord === undefined) this.#events.lost();
  }
}

/** Closes an output's socket once the stand-in ends its side, on which it sends nothing: then nobody reads the output any more. */
function watchReader(socket: Socket): void {
  socket.on("error", () => {}); // `close` follows
  socket.on("end", () => socket.destroy());
  if (socket.readableEnded) socket.destroy();
  else socket.resume();
}

/** A window size from a message, or null where it is none. */
function windowSize(value: unknown): WindowSize | null {
  if (typeof value !== "object" || value === null || !("rows" in value) || !("columns" in value)) return null;
  const { rows, columns } = value;
  return typeof rows === "number" && typeof columns === "number" ? { rows, columns } : null;
}
