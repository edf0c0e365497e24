/** For tests: a service with every kind of method, and the other end of a connection, which does what the test says and nothing else. */
import { once } from "node:events";
import { mkdtempSync, rmSync } from "node:fs";
import { connect, createServer, type Server, type Socket } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { Any } from "../gen/google/protobuf/any.ts";
import { Empty } from "../gen/google/protobuf/empty.ts";
import { Request, Response } from "../gen/ttrpc/ttrpc.ts";
import { TtrpcClient } from "./client.ts";
import { encodeFrame, type Frame, FrameParser, FrameType } from "./frame.ts";
import { TtrpcServer } from "./server.ts";
import type { Handlers } from "./service.ts";

/** Its messages are Any, for the text and the bytes in it. */
export const EchoDefinition = {
  name: "Echo",
  fullName: "test.Echo",
  methods: {
    one: { name: "One", requestType: Any, requestStream: false, responseType: Any, responseStream: false },
    none: { name: "None", requestType: Empty, requestStream: false, responseType: Empty, responseStream: false },
    split: { name: "Split", requestType: Any, requestStream: false, responseType: Any, responseStream: true },
    join: { name: "Join", requestType: Any, requestStream: true, responseType: Any, responseStream: false },
    both: { name: "Both", requestType: Any, requestStream: true, responseType: Any, responseStream: true },
  },
} as const;

/** A message of the Echo service. */
export const text = (typeUrl: string): Any => ({ typeUrl, value: Buffer.alloc(0) });

/** What a request frame carries, for a peer that plays the client. */
export function request(method: string, message: Any = text(""), timeoutNano = 0n): Uint8Array {
  const payload = Buffer.from(Any.encode(message).finish());
  return Request.encode({ service: EchoDefinition.fullName, method, payload, timeoutNano, metadata: [] }).finish();
}

export class ScriptedPeer {
  readonly socket: Socket;
  readonly #parser = new FrameParser();
  readonly #frames: Frame[] = [];
  #wake: () => void = () => {};

  constructor(socket: Socket) {
    this.socket = socket;
    socket.on("error", () => {}); // the other end hangs up on a peer that breaks the protocol
    socket.on("close", () => this.#wake());
    socket.on("data", (chunk: Buffer) => {
      this.#frames.push(...this.#parser.push(chunk));
      this.#wake();
    });
  }

  send(streamId: number, type: number, flags: number, data: Uint8Array = Buffer.alloc(0)): void {
    this.socket.write(encodeFrame(streamId, type, flags, data));
  }

  /** The next frame; nothing once the connection has ended. */
  async receive(): Promise<Frame | undefined> {
    for (;;) {
      const frame = this.#frames.shift();
      if (frame !== undefined || this.socket.destroyed) return frame;
      await new Promise<void>((resolve) => {
        this.#wake = resolve;
      });
    }
  }

  /** The next frame, which is a response, as stream, code, and the error's or the message's text. */
  async response(): Promise<[streamId: number, code: number, text: string]> {
    const frame = await this.receive();
    if (frame?.type !== FrameType.response || frame.data === undefined) throw new Error(`no response: ${JSON.stringify(frame)}`);
    const { status, payload } = Response.decode(frame.data);
    return [frame.streamId, status?.code ?? 0, status?.message ?? Any.decode(payload).typeUrl];
  }
}

/** A listening unix socket in a folder of its own. */
export async function listen(): Promise<{ listener: Server; path: string; [Symbol.dispose]: () => void }> {
  const folder = mkdtempSync(join(tmpdir(), "husk-ttrpc-"));
  const path = join(folder, "s");
  const listener = createServer().listen(path);
  await once(listener, "listening");
  const close = (): void => {
    listener.close();
    rmSync(folder, { recursive: true });
  };
  return { listener, path, [Symbol.dispose]: close };
}

export async function dial(path: string): Promise<ScriptedPeer> {
  const socket = connect(path);
  await once(socket, "connect");
  return new ScriptedPeer(socket);
}

/** A server of the Echo service on a socket of its own. */
export class TestServer {
  readonly ttrpc: TtrpcServer;
  readonly path: string;
  /** What `onFailure` was told. */
  readonly failures: [what: string, message: string][] = [];
  /** The errors themselves. */
  readonly errors: unknown[] = [];
  readonly #close: () => void;

  private constructor({ listener, path, ...socket }: Awaited<ReturnType<typeof listen>>) {
    this.path = path;
    this.#close = socket[Symbol.dispose];
    const onFailure = (error: unknown, what: string): void => {
      this.errors.push(error);
      this.failures.push([what, error instanceof Error ? error.message : String(error)]);
    };
    this.ttrpc = new TtrpcServer({ onFailure });
    this.ttrpc.serve(listener);
  }

  static async start(): Promise<TestServer> {
    return new TestServer(await listen());
  }

  /** A peer that plays the client of a service with these handlers. */
  serve(handlers: Handlers<typeof EchoDefinition>, toTheEnd: readonly (keyof typeof EchoDefinition.methods)[] = []): Promise<ScriptedPeer> {
    this.ttrpc.register(EchoDefinition, handlers, toTheEnd);
    return dial(this.path);
  }

  async stop(): Promise<void> {
    await this.ttrpc.close(0);
    this.#close();
  }
}

/** The client under test, on a socket of its own, and what it talks to: a real server, or the test. */
export class TestClient {
  readonly socket: Awaited<ReturnType<typeof listen>>;
  #ttrpc: TtrpcClient | undefined;

  private constructor(socket: Awaited<ReturnType<typeof listen>>) {
    this.socket = socket;
  }

  static async open(): Promise<TestClient> {
    return new TestClient(await listen());
  }

  get ttrpc(): TtrpcClient {
    if (this.#ttrpc === undefined) throw new Error("the client is not connected yet");
    return this.#ttrpc;
  }

  /** Takes a client that the test has made itself. */
  set ttrpc(client: TtrpcClient) {
    this.#ttrpc = client;
  }

  /** Connects it to a server that the test plays. */
  async play(): Promise<ScriptedPeer> {
    const accepted = once(this.socket.listener, "connection") as Promise<[Socket]>;
    this.#ttrpc = await TtrpcClient.connect(this.socket.path);
    return new ScriptedPeer((await accepted)[0]);
  }

  /** Connects it to a real server of the Echo service. */
  async serve(handlers: Handlers<typeof EchoDefinition>): Promise<TtrpcServer> {
    const server = new TtrpcServer();
    server.register(EchoDefinition, handlers);
    server.serve(this.socket.listener);
    this.#ttrpc = await TtrpcClient.connect(this.socket.path);
    return server;
  }

  async close(): Promise<void> {
    await this.ttrpc.close();
    this.socket[Symbol.dispose]();
  }
}

/** What a promise rejects with. */
export const failure = (promise: Promise<unknown>): Promise<unknown> =>
  promise.then(
    () => "no error",
    (error: unknown) => error,
  );

/** What a response frame carries that refuses a call. */
export const refusal = (code: number, message: string): Uint8Array =>
  Response.encode({ status: { code, message, details: [] }, payload: Buffer.alloc(0) }).finish();

/** Everything of a source, also into a list of the caller's, which has what came before an error. */
export async function collect<T>(source: AsyncIterable<T>, into: T[] = []): Promise<T[]> {
  for await (const item of source) into.push(item);
  return into;
}

/** Resolves when the signal is aborted. */
export function aborted(signal: AbortSignal): Promise<void> {
  return new Promise((resolve) => {
    if (signal.aborted) resolve();
    else signal.addEventListener("abort", () => resolve());
  });
}
