/**
 * The supervisor's control socket, ROOT/ID/sock: JSON objects, one a line. A connection's first line says what it is for.
 *
 *     {"attach":TOKEN,"stream":"control"|"stdin"|"stdout"|"stderr","pid":N}    a stand-in's; what follows is as
 *                                                                              guest-agent/helper/PROTOCOL.md has it
 *     {"session":"exec"|"verb","words":["--root","/r","exec","ID","ls"],...}   front's: a session with whoever can read a command line, see
 *                                                                              PROTOCOL.md; a supervisor that cannot ends it without a word
 *     {"session":"join","words":["--root","/r","create","ID2"],...}            a session likewise, from the process that front has started: of a
 *                                                                              container that belongs into the sandbox of this one
 *     {"id":1,"call":"start","params":{}}                                      a client's; it may go on calling, and calls overlap
 *       {"id":1,"result":{}}  |  {"id":1,"error":{"code":"wrong-state","message":"..."}}
 *
 * The run folder's mode (0700) is what keeps others out. This file serves it; control-client.ts calls it.
 */
import { chmodSync } from "node:fs";
import { createServer, type Server, type Socket } from "node:net";
import { type ErrorCode, explain, HuskError } from "../errors.ts";
import { maxLineBytes, readJsonLines } from "../host/lines.ts";
import { shortPath } from "./run-folder.ts";

/** What a client may call; the names are runc's verbs where it has one. */
export const controlMethods = [
  "start",
  "kill",
  "pause",
  "resume",
  "ps",
  "exec",
  "execStarted",
  "delete",
  "state",
  "stats",
  "memoryKills",
  "update",
  "resize",
  "standIns",
  "checkpoint",
] as const;
export type ControlMethod = (typeof controlMethods)[number];

/** What front, or the process that it has started, may begin. */
const sessions = ["exec", "verb", "join"] as const;

export const attachStreams = ["control", "stdin", "stdout", "stderr"] as const;
export type AttachStream = (typeof attachStreams)[number];

/** A stand-in's first line. */
export interface AttachHello {
  readonly token: string;
  readonly stream: AttachStream;
  /** The stand-in's PID; on the control stream alone. */
  readonly pid: number | undefined;
}

export type Params = Readonly<Record<string, unknown>>;

/** What a call knows of its caller. */
export interface CallContext {
  /** Aborted when the caller is gone: the answer would reach nobody. */
  readonly signal: AbortSignal;
}

/** Who answers on a control socket. */
export interface ControlHandlers {
  /** Carries a call out. What it returns is the result (undefined: {}), what it throws is sent as the error. */
  readonly call: (method: ControlMethod, params: Params, context: CallContext) => Promise<object | void> | object | void;
  /**
   * Takes over a stand-in's connection: not flowing yet, with nothing lost of what came after its first line, its end included, and open
   * in both directions until it is ended in both. It must listen for the socket's errors.
   */
  readonly attach: (hello: AttachHello, socket: Socket) => void;
  /** Takes over front's connection in the same way; `request` is its first line. Who has none ends such connections. */
  readonly session?: (request: Params, socket: Socket) => void;
}

/** A call's error as it is on the wire. The message is the whole chain in one line, its hint included. */
export interface WireError {
  readonly code: ErrorCode;
  readonly message: string;
}

export interface ControlServer extends AsyncDisposable {
  /** Stops listening, removes the socket and ends the clients' connections after their last answers; stand-ins', and those that join, are their owner's. */
  close(): Promise<void>;
}

/** Serves the control socket at `path`, whatever its length. Throws `host` where it cannot be bound. */
export async function serveControl(path: string, handlers: ControlHandlers): Promise<ControlServer> {
  const clients = new Set<Socket>();
  const server = createServer({ allowHalfOpen: true }, (socket) => accept(socket, handlers, clients));
  // Held as long as the server: closing it unlinks the path it was bound to.
  const short = shortPath(path);
  try {
    await listening(server, short.path);
    chmodSync(short.path, 0o600);
  } catch (cause) {
    short.release();
    throw new HuskError("host", `cannot listen on ${path}`, { cause });
  }
  let closed: Promise<void> | undefined;
  const close = (): Promise<void> => {
    closed ??= (async () => {
      server.close(); // its callback would wait for the stand-ins' connections too
      short.release();
      const ends = [...clients].map((client) => new Promise((resolve) => client.once("close", resolve)));
      for (const client of clients) client.destroySoon();
      await Promise.all(ends);
    })();
    return closed;
  };
  return { close, [Symbol.asyncDispose]: close };
}

function listening(server: Server, path: string): Promise<void> {
  return new Promise((resolve, reject) => {
    server.once("error", reject);
    server.listen({ path }, () => {
      server.off("error", reject);
      resolve();
    });
  });
}

/** Reads a connection's first line, and hands the connection to whom it is for. */
function accept(socket: Socket, handlers: ControlHandlers, clients: Set<Socket>): void {
  clients.add(socket);
  const gone = new AbortController();
  const onError = (): void => {}; // `close` follows, and says all there is to know: the peer is gone
  socket.on("error", onError);
  socket.on("close", () => {
    clients.delete(socket);
    gone.abort();
  });
  let begun = Buffer.alloc(0);
  // "readable" rather than "data": once its last listener is off, the socket is as if nobody had listened yet.
  const onReadable = (): void => {
    for (let chunk = read(socket); chunk !== null; chunk = read(socket)) begun = Buffer.concat([begun, chunk]);
    const end = begun.indexOf(0x0a);
    if (end === -1) {
      if (begun.length > maxLineBytes) socket.destroy();
      return;
    }
    socket.off("readable", onReadable);
    socket.off("end", onEnd);
    const first = parseFirst(begun.subarray(0, end).toString("utf8"));
    // The first of a client's calls is among them.
    const rest = first.of === "client" ? begun : begun.subarray(end + 1);
    if (rest.length > 0) socket.unshift(rest);
    switch (first.of) {
      case "client":
        return serveCalls(socket, handlers, gone.signal);
      case "front":
        // A container made in this one's sandbox outlives this one.
        if (first.request["session"] === "join") clients.delete(socket);
        if (handlers.session === undefined) socket.destroy();
        else handlers.session(first.request, socket);
        return;
      case "stand-in":
        clients.delete(socket);
        repeatEnd(socket);
        handlers.attach(first.hello, socket);
        socket.off("error", onError);
        return;
      default:
        first satisfies never;
    }
  };
  const onEnd = (): void => {
    socket.destroy();
  };
  socket.on("readable", onReadable);
  socket.on("end", onEnd);
}

/**
 * Tells of the end of file again to those who begin to listen after it: Node's sockets emit `end` as soon as the peer has ended, listened to
 * or not, where no byte is left to be read.
 */
function repeatEnd(socket: Socket): void {
  socket.once("end", () => {
    socket.on("newListener", (event, listener) => {
      if (event === "end") process.nextTick(listener);
    });
  });
}

function read(socket: Socket): Buffer | null {
  return socket.read() as Buffer | null; // no encoding is set
}

function serveCalls(socket: Socket, handlers: ControlHandlers, signal: AbortSignal): void {
  let pending = 0;
  let ended = false;
  const answer = (id: number, reply: object): void => {
    socket.write(`${JSON.stringify({ id, ...reply })}\n`);
    pending--;
    if (ended && pending === 0) socket.end();
  };
  readJsonLines(
    socket,
    "a client of the control socket",
    (message) => {
      const { id, call, params } = message;
      const method = controlMethods.find((known) => known === call);
      if (typeof id !== "number") {
        socket.destroy();
        return;
      }
      pending++;
      if (method === undefined) {
        answer(id, { error: wireError(new HuskError("unsupported", `the supervisor has no call ${JSON.stringify(call)}`)) });
        return;
      }
      // In a promise's chain, so that a handler that throws at once is answered like one that rejects.
      Promise.resolve()
        .then(() => handlers.call(method, isParams(params) ? params : {}, { signal }))
        .then(
          (result) => answer(id, { result: result ?? {} }),
          (error: unknown) => answer(id, { error: wireError(error) }),
        );
    },
    () => {
      ended = true;
      if (pending === 0) socket.end(); // a client that has said all may still wait for its answers
    },
  );
}

function wireError(error: unknown): WireError {
  return { code: error instanceof HuskError ? error.code : "internal", message: explain(error) };
}

function isParams(value: unknown): value is Params {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}

type FirstLine =
  | { readonly of: "client" }
  | { readonly of: "front"; readonly request: Params }
  | { readonly of: "stand-in"; readonly hello: AttachHello };

/** What a connection's first line says of it. Whatever is of nobody else is a client's, who is told of its mistakes. */
function parseFirst(line: string): FirstLine {
  let value: unknown;
  try {
    value = JSON.parse(line);
  } catch {
    return { of: "client" };
  }
  if (!isParams(value)) return { of: "client" };
  const { attach, stream, pid, session } = value;
  if (sessions.some((known) => known === session)) return { of: "front", request: value };
  const known = attachStreams.find((name) => name === stream);
  if (typeof attach !== "string" || known === undefined) return { of: "client" };
  const ownPid = typeof pid === "number" && Number.isSafeInteger(pid) && pid > 0 ? pid : undefined;
  return { of: "stand-in", hello: { token: attach, stream: known, pid: ownPid } };
}
