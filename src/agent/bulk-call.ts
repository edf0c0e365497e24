/**
 * A call that carries a process's bytes. grpc-js makes every other call; through its layers each byte is copied four times, which is half of what bulk
 * output costs. One call on its HTTP/2 stream: what is written goes out as messages, what comes in is told by events, and there is one end.
 *
 *     headers ── data ... data ── end      the call succeeded
 *                             └── error    or it did not, for this reason
 */
import { EventEmitter } from "node:events";
import { type ClientHttp2Session, type ClientHttp2Stream, constants, type IncomingHttpHeaders } from "node:http2";
import { GrpcCode } from "../errors.ts";
import { keepFewBuffers } from "../host/frugal.ts";
import { BytesMessages, bytesHead, framed, type MessageReader, WholeMessages } from "./bulk-message.ts";
import { GrpcError, resetStatus, statusOf } from "./bulk-status.ts";

/** How a method's messages become bytes, and back. */
export interface Codec<Request, Response> {
  readonly path: string;
  readonly encode: (message: Request) => Uint8Array;
  /** "bytes": the answer's messages are one field of bytes each, and those are passed on in pieces; see BytesMessages. */
  readonly decode: ((message: Buffer) => Response) | "bytes";
}

interface CallEvents<Response> {
  /** The guest has taken the call. */
  readonly metadata: [];
  readonly data: [message: Response];
  /** Of a call whose answer is bytes: it ends with the process. Before its end. */
  readonly lastWord: [];
  /** More may be written. */
  readonly drain: [];
  readonly end: [];
  readonly error: [error: GrpcError];
}

/** From so much on it is bulk indeed. */
const bulkBytes = 4 * 1024 * 1024;

export class BulkCall<Request, Response> extends EventEmitter<CallEvents<Response>> {
  readonly #codec: Codec<Request, Response>;
  readonly #reader: MessageReader;
  /** What was asked before there was a stream. */
  #early: ((stream: ClientHttp2Stream) => void)[] = [];
  #stream: ClientHttp2Stream | undefined;
  #headers: IncomingHttpHeaders | undefined;
  #ended = false;
  #received = 0;

  /** Begins as soon as there is a session; fails as that does. `deadlineMs`: how long it may take, where that is bounded. */
  constructor(session: Promise<ClientHttp2Session>, codec: Codec<Request, Response>, deadlineMs?: number) {
    super();
    this.#codec = codec;
    const { decode } = codec;
    // "bytes" says what Response is, which the compiler cannot see.
    const onData = (message: unknown): void => void this.emit("data", ...([message] as [Response]));
    this.#reader =
      decode === "bytes" ? new BytesMessages(onData, () => this.emit("lastWord")) : new WholeMessages((message) => onData(decode(message)));
    if (deadlineMs !== undefined) this.#limit(deadlineMs);
    session.then(
      (ready) => this.#begin(ready),
      (error: Error) => this.#end(new GrpcError(GrpcCode.unavailable, error.message)),
    );
  }

  /** Answers false where nothing more should be written until `drain`. */
  write(message: Request): boolean {
    return this.#send([framed(this.#codec.encode(message))]);
  }

  /** Writes a message that has nothing but field `field`, of bytes, without a copy of them: they must not change until they have left. */
  writeBytes(field: number, data: Uint8Array): boolean {
    return this.#send([bytesHead(field, data), data]);
  }

  /** Nothing more will be written. */
  end(): void {
    this.#with((stream) => void stream.end());
  }

  pause(): void {
    this.#with((stream) => void stream.pause());
  }

  resume(): void {
    this.#with((stream) => void stream.resume());
  }

  /** Gives the call up: it ends with an error, unless it has ended. */
  cancel(): void {
    this.#end(new GrpcError(GrpcCode.canceled, "the call was given up"));
  }

  #send(parts: readonly Uint8Array[]): boolean {
    const stream = this.#stream;
    if (this.#ended) return true;
    if (stream === undefined) {
      this.#early.push((opened) => write(opened, parts));
      return true;
    }
    return write(stream, parts);
  }

  #with(action: (stream: ClientHttp2Stream) => void): void {
    if (this.#ended) return;
    if (this.#stream === undefined) this.#early.push(action);
    else action(this.#stream);
  }

  #limit(deadlineMs: number): void {
    const late = (): void => this.#end(new GrpcError(GrpcCode.deadlineExceeded, `there was no answer within ${deadlineMs} ms`));
    const timer = setTimeout(late, Math.max(0, deadlineMs));
    const stop = (): void => clearTimeout(timer);
    this.once("end", stop).once("error", stop);
  }

  #begin(session: ClientHttp2Session): void {
    if (this.#ended) return;
    if (session.closed || session.destroyed) return this.#end(new GrpcError(GrpcCode.unavailable, "the connection has ended"));
    const stream = session.request({
      ":method": "POST",
      ":path": this.#codec.path,
      "content-type": "application/grpc",
      te: "trailers",
    });
    this.#stream = stream;
    stream.on("response", (headers) => {
      this.#headers = headers;
      if (headers["grpc-status"] === undefined) this.emit("metadata"); // else they are the end as well: a call that was refused
    });
    stream.on("trailers", (headers) => {
      this.#headers = headers;
    });
    stream.on("data", (chunk: Buffer) => this.#receive(chunk));
    stream.on("drain", () => this.emit("drain"));
    stream.on("end", () => {
      // Without a status it was cut off, or there is none: `close` knows.
      if (this.#headers?.["grpc-status"] === undefined) stream.end();
      else this.#end(this.#answered());
    });
    stream.on("error", () => {}); // `close` follows
    stream.on("close", () => {
      if (session.destroyed || session.closed) this.#end(new GrpcError(GrpcCode.unavailable, "the connection has ended"));
      else this.#end(stream.rstCode === constants.NGHTTP2_NO_ERROR ? this.#answered() : resetStatus(stream.rstCode));
    });
    for (const action of this.#early) action(stream);
    this.#early = [];
  }

  #receive(chunk: Buffer): void {
    if (this.#ended) return;
    this.#received += chunk.length;
    if (this.#received > bulkBytes) keepFewBuffers();
    try {
      this.#reader.feed(chunk);
    } catch (error) {
      this.#end(new GrpcError(GrpcCode.internal, error instanceof Error ? error.message : String(error)));
    }
  }

  /** What the answer's end says; undefined: it is whole, and well. */
  #answered(): GrpcError | undefined {
    const cut = this.#reader.whole ? undefined : new GrpcError(GrpcCode.internal, "the answer ended within a message");
    return statusOf(this.#headers) ?? cut;
  }

  #end(error: GrpcError | undefined): void {
    if (this.#ended) return;
    this.#ended = true;
    this.#early = [];
    this.#stream?.close(error === undefined ? constants.NGHTTP2_NO_ERROR : constants.NGHTTP2_CANCEL);
    if (error === undefined) this.emit("end");
    else this.emit("error", error);
  }
}

function write(stream: ClientHttp2Stream, parts: readonly Uint8Array[]): boolean {
  if (stream.destroyed || stream.writableEnded) return true;
  stream.cork();
  let more = true;
  for (const part of parts) more = stream.write(part);
  stream.uncork();
  return more;
}
