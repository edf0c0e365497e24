/**
 * A session: the conversation with front (guest-agent/helper/PROTOCOL.md), and with it with the caller's standard streams, exit status and life.
 * front's child has it on descriptor 3; a supervisor, on a connection to its control socket.
 *
 *     front ── hello ──► husk
 *     front ◄── attach (front, or a process that it forks, becomes the stand-in), print
 *     front ◄── fail | exit: the last word, unless front has become the stand-in
 *     front ◄── decline (a supervisor's only word, where it has another one): not for me, ask Node
 *     front ◄── take (a supervisor's of the pool): from here on, nobody else may be asked
 */
import { fstatSync } from "node:fs";
import { Socket } from "node:net";
import { HuskError } from "../errors.ts";
import { withDeadline } from "../host/deadline.ts";
import { deferred } from "../host/deferred.ts";
import { readJsonLines, writeJsonLine } from "../host/lines.ts";
import { boolean, integer, object, type Reader, read } from "../narrow.ts";

/** The descriptor on which front talks to its child. */
const frontDescriptor = 3;

/** front says hello before anything else, so its silence means that something else is at the other end. In milliseconds. */
const helloWithinMs = 5_000;

export interface TerminalSize {
  readonly rows: number;
  readonly columns: number;
}

/** What a terminal in the guest is to be like where the caller's stands behind it. */
export interface CallerTerminal {
  /** Of the caller's terminal, where there is one. */
  readonly size: TerminalSize | null;
  /** The output goes to a file or a pipe, and is to have the program's line feeds as they are, as with runc. */
  readonly plainNewlines: boolean;
}

/** Who front is, and what its standard streams are. */
export interface Hello {
  /** front's own PID: that of the stand-in, where front becomes it. */
  readonly pid: number;
  /** Which of the standard streams are terminals. */
  readonly terminal: { readonly stdin: boolean; readonly stdout: boolean; readonly stderr: boolean };
  /** The terminal's size, where there is one. */
  readonly size: TerminalSize | null;
}

const sizeReader = object<TerminalSize>({ rows: integer(0, 65535), columns: integer(0, 65535) });
const helloReader: Reader<Hello> = object<Hello>({
  pid: integer(1),
  terminal: object<Hello["terminal"]>({ stdin: boolean, stdout: boolean, stderr: boolean }),
  size: (value, place) => (value === null || value === undefined ? null : sizeReader(value, place)),
});

/** Who shall dial a supervisor's socket, and how. */
export interface Attachment {
  /** The supervisor's control socket. */
  readonly socket: string;
  readonly token: string;
  /** Whether front forks the stand-in and goes on, or becomes it. */
  readonly detach: boolean;
}

export class Session {
  readonly hello: Hello;
  /** Aborted when front is gone: whoever waits for us was killed, or gave up. */
  readonly signal: AbortSignal;
  readonly #front: Socket;
  /** Front has become the stand-in, and reads nothing more. */
  #isFrontGone = false;
  #printBy: ((text: string) => void) | undefined;
  #unprinted = "";

  /** Waits for front's hello. Throws `internal` where descriptor 3 leads to nobody who says it: husk was not started through front. */
  static async open(descriptor = frontDescriptor): Promise<Session> {
    const front = openSocket(descriptor);
    const hello = deferred<Hello>();
    const gone = new AbortController();
    const timer = setTimeout(() => hello.reject(notFront()), helloWithinMs);
    readJsonLines(
      front,
      "front",
      (message) => {
        if (message["op"] !== "hello") return;
        try {
          hello.resolve(read(helloReader, message));
        } catch (cause) {
          hello.reject(notFront(cause));
        }
      },
      () => {
        hello.reject(notFront());
        gone.abort(new HuskError("internal", "the process that asked for it is gone"));
      },
    );
    try {
      return new Session(front, await hello.promise, gone.signal);
    } catch (error) {
      front.destroy();
      throw error;
    } finally {
      clearTimeout(timer);
    }
  }

  /** The session of a front that has dialled a supervisor, and said `hello`. Throws `internal` where that is no hello. */
  static over(front: Socket, hello: unknown): Session {
    const gone = new AbortController();
    const onEnd = (): void => gone.abort(new HuskError("internal", "the process that asked for it is gone"));
    readJsonLines(front, "front", () => {}, onEnd); // what it cannot understand, it says; there is nothing to be done about it
    try {
      return new Session(front, read(helloReader, hello), gone.signal);
    } catch (cause) {
      throw notFront(cause);
    }
  }

  private constructor(front: Socket, hello: Hello, signal: AbortSignal) {
    this.#front = front;
    this.hello = hello;
    this.signal = signal;
    front.unref(); // what serves a session ends when its work does, not when front does
  }

  get terminal(): CallerTerminal {
    return { size: this.hello.size, plainNewlines: !this.hello.terminal.stdout };
  }

  /** Has a stand-in dial the supervisor's socket. */
  attach(attachment: Attachment): void {
    this.#send({ op: "attach", ...attachment });
    this.#isFrontGone = !attachment.detach;
  }

  /** Prints text on the caller's standard output, or standard error: in the stand-in's place, by way of `printBy`, which knows standard error alone. */
  print(text: string, stream: "stdout" | "stderr" = "stdout"): void {
    if (!this.#isFrontGone) this.#send({ op: "print", text, stream });
    else if (this.#printBy !== undefined) this.#printBy(text);
    else this.#unprinted += text;
  }

  /** How the stand-in that front has become is told what to print. */
  printBy(say: (text: string) => void): void {
    this.#printBy = say;
    if (this.#unprinted !== "") say(this.#unprinted);
    this.#unprinted = "";
  }

  /** Prints "husk: MESSAGE" on the caller's standard error, and lets the call end with `status`. */
  fail(message: string, status: number): void {
    this.#send({ op: "fail", message, status });
  }

  /**
   * Has front begin again with Node, since this is none of the supervisor's calls. Nothing else may have been said. `shape`: of the pool's sandboxes that
   * it is for.
   */
  decline(shape?: string): void {
    this.#send({ op: "decline", shape });
  }

  /** Tells front that the call is begun with, so that it asks nobody else. */
  take(): void {
    this.#send({ op: "take" });
  }

  /**
   * Has front obey another process, as `supervisor` says it. Resolves when that has said all; answers whether it said anything. Throws `deadline` where it says
   * nothing for so long: then it is asked for nothing any more.
   */
  async relay(supervisor: Socket, withinMs: number): Promise<boolean> {
    const said = new Promise<void>((resolve) => supervisor.once("data", () => resolve()));
    supervisor.on("data", (orders: Buffer) => this.#front.write(orders));
    const over = new Promise<void>((resolve) => {
      supervisor.once("end", resolve);
      supervisor.once("close", resolve); // without an end, where the connection was cut
    });
    try {
      await withDeadline(Promise.race([said, over]), withinMs, "the wait for the supervisor's first word");
      await over;
    } finally {
      supervisor.destroy();
    }
    return supervisor.bytesRead > 0;
  }

  /** Lets the call end with `status`. */
  exit(status: number): void {
    this.#send({ op: "exit", status });
  }

  /** Ends the connection, after all that was sent has left. Resolves when it has. */
  async close(): Promise<void> {
    if (this.#front.destroyed) return;
    await new Promise<void>((resolve) => this.#front.end(resolve));
    this.#front.destroy();
  }

  #send(message: object): void {
    if (this.#front.writable) writeJsonLine(this.#front, message);
  }
}

function openSocket(descriptor: number): Socket {
  try {
    if (!fstatSync(descriptor).isSocket()) throw notFront();
    return new Socket({ fd: descriptor, readable: true, writable: true });
  } catch (cause) {
    throw cause instanceof HuskError ? cause : notFront(cause);
  }
}

function notFront(cause?: unknown): HuskError {
  return new HuskError("internal", "this command needs husk's front on descriptor 3", {
    ...(cause === undefined ? {} : { cause }),
    hint: "call it as `husk`, or as bin/husk in a checkout",
  });
}
