/**
 * One client's connection: its calls run at the same time, and each is answered when it is done.
 *
 * A client that breaks the protocol in one call (a stream id that is even or used before, a request that cannot be read or is too long) is
 * told so on that stream, as Go's ttrpc does it, and its other calls go on; where no frames can be read any more, the connection ends.
 */
import type { Duplex } from "node:stream";
import { GrpcCode } from "../errors.ts";
import { Request as WireRequest, Response as WireResponse } from "../gen/ttrpc/ttrpc.ts";
import { Flag, type Frame, FrameType, tooLong } from "./frame.ts";
import { FrameConnection } from "./frame-connection.ts";
import { MessageQueue } from "./message-queue.ts";
import { type ServedMethod, ServerCall } from "./server-call.ts";
import { encodePartial } from "./service.ts";
import { statusOf } from "./status.ts";
import { TtrpcError } from "./ttrpc-error.ts";

/** What one client may have going on at once: a client with more is answered with resourceExhausted. */
const maxCalls = 4096;
const maxRequestBytes = 64 * 1024 * 1024;

const empty = new Uint8Array();

export interface ServerConnectionOptions {
  /** The method of that name; throws `unimplemented` where there is none. */
  readonly find: (service: string, method: string) => ServedMethod;
  /** Told of each call that failed, and of each connection that broke. */
  readonly onFailure: (error: unknown, what: string) => void;
}

export class ServerConnection {
  readonly closed: Promise<void>;
  readonly #options: ServerConnectionOptions;
  readonly #connection: FrameConnection;
  readonly #calls = new Map<number, ServerCall>();
  #requestBytes = 0;
  #lastStreamId = 0;
  #isFinishing = false;

  constructor(stream: Duplex, options: ServerConnectionOptions) {
    this.#options = options;
    this.#connection = new FrameConnection(stream, {
      onFrame: (frame) => this.#receive(frame),
      onEnd: (reason) => this.#ended(reason),
      holdWhileBlocked: true,
    });
    this.closed = this.#connection.closed;
  }

  /** Takes no more calls but those that are for the end: others that are going on are answered, and whatever else comes is refused. */
  finish(): void {
    this.#isFinishing = true;
  }

  /** Closes at once; calls that are going on are aborted. */
  destroy(reason: TtrpcError): void {
    this.#connection.destroy(reason);
  }

  #receive(frame: Frame): void {
    const { streamId, type } = frame;
    if (type !== FrameType.request && type !== FrameType.data) return; // a later version's
    try {
      if (streamId % 2 !== 1) throw invalid("StreamID must be odd for client initiated streams");
      if (type === FrameType.request) this.#open(frame);
      else this.#data(frame);
    } catch (error) {
      this.#refuse(streamId, error);
    }
  }

  #open({ streamId, flags, length, data }: Frame): void {
    if (streamId <= this.#lastStreamId) throw invalid("StreamID cannot be re-used and must increment");
    this.#lastStreamId = streamId;
    if (data === undefined) throw tooLong(length);
    const request = decode("request", () => WireRequest.decode(data));
    const served = this.#options.find(request.service, request.method);
    if (this.#isFinishing && !served.toTheEnd) throw new TtrpcError(GrpcCode.unavailable, "the server is closing");
    if (this.#calls.size >= maxCalls || this.#requestBytes + length > maxRequestBytes) {
      throw new TtrpcError(GrpcCode.resourceExhausted, `${this.#calls.size} calls are going on; no more are taken`);
    }
    const { requestType, requestStream } = served.definition;
    const hasMessage = !requestStream || request.payload.length > 0;
    const message = hasMessage ? decode("payload", () => requestType.decode(request.payload)) : undefined;
    const requests = requestStream ? new MessageQueue<unknown>(() => this.#connection.hold()) : undefined;
    const call = new ServerCall(streamId, request, served, requests);
    this.#calls.set(streamId, call);
    this.#requestBytes += call.bytes;
    if (requests !== undefined && hasMessage) requests.push(message, call.bytes);
    if ((flags & Flag.remoteOpen) === 0) requests?.end();
    call.limit(request.timeoutNano, (reason) => {
      this.#refuse(streamId, reason);
      call.abort(reason);
    });
    void this.#run(call, requests ?? message);
  }

  #data({ streamId, flags, length, data }: Frame): void {
    if (streamId > this.#lastStreamId) throw invalid("StreamID is no longer active");
    const call = this.#calls.get(streamId);
    if (call === undefined || call.answered) return; // sent before the client had our answer
    try {
      if (data === undefined) throw tooLong(length);
      if ((flags & Flag.noData) === 0) {
        if (call.requests === undefined) throw invalid(`${call.name} takes one request`);
        const message = decode("payload", () => call.served.definition.requestType.decode(data));
        call.requests.push(message, length);
      }
      if ((flags & Flag.remoteClosed) !== 0) call.requests?.end();
    } catch (error) {
      this.#refuse(streamId, error);
      call.abort(new TtrpcError(GrpcCode.canceled, `the client broke ${call.name} off`, { cause: error }));
    }
  }

  async #run(call: ServerCall, input: unknown): Promise<void> {
    const { definition, handler } = call.served;
    const { responseType, responseStream } = definition;
    try {
      const answer = handler(input, call.context);
      if (responseStream) await this.#stream(call, answer as AsyncIterable<unknown>);
      else this.#answer(call, { status: undefined, payload: Buffer.from(encodePartial(responseType, (await answer) ?? {})) });
    } catch (error) {
      if (!call.answered) this.#fail(call, error);
    } finally {
      call.finish();
      call.requests?.discard();
      this.#calls.delete(call.streamId);
      this.#requestBytes -= call.bytes;
    }
  }

  async #stream(call: ServerCall, answers: AsyncIterable<unknown>): Promise<void> {
    for await (const answer of answers) {
      if (call.answered) return;
      const message = encodePartial(call.served.definition.responseType, answer);
      this.#connection.send(call.streamId, FrameType.data, 0, message);
      await this.#connection.ready();
    }
    if (call.answered) return;
    call.answered = true;
    this.#connection.send(call.streamId, FrameType.data, Flag.remoteClosed | Flag.noData, empty);
  }

  #answer(call: ServerCall, response: WireResponse): void {
    if (call.answered) return;
    this.#connection.send(call.streamId, FrameType.response, 0, WireResponse.encode(response).finish());
    call.answered = true;
  }

  #fail(call: ServerCall, error: unknown): void {
    call.answered = true;
    this.#options.onFailure(error, call.name);
    this.#sendStatus(call.streamId, error);
  }

  /** Answers what did not get as far as a handler, or what the handler is not asked any more. */
  #refuse(streamId: number, error: unknown): void {
    this.#options.onFailure(error, `stream ${streamId}`);
    this.#sendStatus(streamId, error);
  }

  #sendStatus(streamId: number, error: unknown): void {
    const response = { status: statusOf(error), payload: Buffer.alloc(0) };
    this.#connection.send(streamId, FrameType.response, 0, WireResponse.encode(response).finish());
  }

  #ended(reason: TtrpcError): void {
    if (reason.grpcCode !== GrpcCode.unavailable) this.#options.onFailure(reason, "connection");
    for (const call of this.#calls.values()) call.abort(reason);
  }
}

function invalid(message: string): TtrpcError {
  return new TtrpcError(GrpcCode.invalidArgument, message);
}

/** Reads what the client sent; throws `invalidArgument` where it cannot be read. */
function decode<T>(what: string, read: () => T): T {
  try {
    return read();
  } catch (cause) {
    throw new TtrpcError(GrpcCode.invalidArgument, `the ${what} cannot be read`, { cause });
  }
}
