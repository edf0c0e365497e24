/** Frames over a byte stream, both ways: what the server's and the client's connections have in common. */
import type { Duplex } from "node:stream";
import { GrpcCode } from "../errors.ts";
import { encodeFrame, type Frame, FrameParser } from "./frame.ts";
import { TtrpcError } from "./ttrpc-error.ts";

export interface FrameConnectionOptions {
  readonly onFrame: (frame: Frame) => void;
  /** Called once, when no frame comes any more. */
  readonly onEnd: (reason: TtrpcError) => void;
  /**
   * Read nothing while the peer does not read, so that what it makes us answer stays bounded. Of two peers only one may do that: both
   * would wait for each other.
   */
  readonly holdWhileBlocked: boolean;
}

export class FrameConnection {
  /** Resolves when the stream is closed, whatever closed it. */
  readonly closed: Promise<void>;
  readonly #stream: Duplex;
  readonly #options: FrameConnectionOptions;
  readonly #parser = new FrameParser();
  #ended = false;
  #holds = 0;
  /** While the peer does not read. */
  #blocked: { readonly promise: Promise<void>; readonly over: () => void } | undefined;

  constructor(stream: Duplex, options: FrameConnectionOptions) {
    this.#stream = stream;
    this.#options = options;
    this.closed = new Promise((resolve) => {
      stream.once("close", resolve);
    });
    stream.on("error", (cause) => this.#end(new TtrpcError(GrpcCode.unavailable, "the ttrpc connection broke", { cause })));
    stream.once("end", () => this.#end(closedByPeer()));
    stream.once("close", () => this.#end(closedByPeer()));
    stream.on("drain", () => this.#unblock());
    stream.on("data", (chunk: Buffer) => this.#receive(chunk));
  }

  /** Sends a frame; after the end it is dropped. Throws `resourceExhausted` where the data is too long. */
  send(streamId: number, type: number, flags: number, data: Uint8Array): void {
    const frame = encodeFrame(streamId, type, flags, data);
    if (this.#ended || this.#stream.write(frame) || this.#blocked !== undefined) return;
    const { promise, resolve } = Promise.withResolvers<void>();
    const release = this.#options.holdWhileBlocked ? this.hold() : () => {};
    this.#blocked = {
      promise,
      over: () => {
        release();
        resolve();
      },
    };
  }

  /** Resolves when there is room for more, or the connection has ended. */
  async ready(): Promise<void> {
    await this.#blocked?.promise;
  }

  /** Reads nothing until the function that it gives is called. */
  hold(): () => void {
    if (this.#holds++ === 0) this.#stream.pause();
    return () => {
      if (--this.#holds === 0 && !this.#ended) this.#stream.resume();
    };
  }

  /** Closes at once. */
  destroy(reason: TtrpcError): void {
    this.#end(reason);
  }

  #receive(chunk: Buffer): void {
    try {
      for (const frame of this.#parser.push(chunk)) {
        if (this.#ended) return;
        this.#options.onFrame(frame);
      }
    } catch (error) {
      if (!(error instanceof TtrpcError)) throw error;
      this.#end(error);
    }
  }

  #end(reason: TtrpcError): void {
    if (this.#ended) return;
    this.#ended = true;
    this.#stream.destroy();
    this.#unblock();
    this.#options.onEnd(reason);
  }

  #unblock(): void {
    const blocked = this.#blocked;
    this.#blocked = undefined;
    blocked?.over();
  }
}

function closedByPeer(): TtrpcError {
  return new TtrpcError(GrpcCode.unavailable, "the peer closed the ttrpc connection");
}
