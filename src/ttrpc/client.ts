/**
 * A ttrpc client on one connection: unary calls and ttrpc 1.2's streams, many at a time. It never dials again: when the connection ends, all
 * that is pending fails with `unavailable`, and so does every later call. Knows nothing of husk but its errors.
 *
 *     await using client = await TtrpcClient.connect(process.env.TTRPC_ADDRESS, { timeoutMs: 5000 });
 *     await client.call(EventsDefinition, "forward", { envelope }, { timeoutMs: 5000, metadata: { "containerd-namespace-ttrpc": "default" } });
 */
import { connect } from "node:net";
import type { Duplex } from "node:stream";
import { GrpcCode } from "../errors.ts";
import { Request as WireRequest } from "../gen/ttrpc/ttrpc.ts";
import { type ClientCall, discarded, singleAnswer, streamedAnswers } from "./client-call.ts";
import { Flag, type Frame, FrameType, maxDataBytes, tooLong } from "./frame.ts";
import { FrameConnection } from "./frame-connection.ts";
import { MessageQueue } from "./message-queue.ts";
import { type CallInput, encodePartial, type MethodDefinition, type MethodName, type Response, type ServiceDefinition } from "./service.ts";
import { TtrpcError } from "./ttrpc-error.ts";

const maxStreamId = 2 ** 32 - 1;

const empty = new Uint8Array();

export interface WaitOptions {
  /** How long to wait, in milliseconds; without end where it is not given. */
  readonly timeoutMs?: number | undefined;
  /** Gives up; the call rejects with the signal's reason. The protocol has no way to tell the server. */
  readonly signal?: AbortSignal | undefined;
}

export interface CallOptions extends WaitOptions {
  readonly metadata?: Readonly<Record<string, string>> | undefined;
}

/** The methods of a service that give one answer, and those that give a stream of them. */
type SingleMethod<S extends ServiceDefinition> = {
  [K in MethodName<S>]: S["methods"][K]["responseStream"] extends true ? never : K;
}[MethodName<S>];
type StreamMethod<S extends ServiceDefinition> = Exclude<MethodName<S>, SingleMethod<S>>;

export class TtrpcClient implements AsyncDisposable {
  /** Resolves with the reason when the connection has ended, by whatever it was; never rejects. */
  readonly closed: Promise<TtrpcError>;
  readonly #connection: FrameConnection;
  /** By stream: the calls that the server has not ended; of those that were given up, only the ones that may have to be told an end. */
  readonly #calls = new Map<number, ClientCall>();
  #nextStreamId = 1;
  /** Why the connection ended. */
  #failure: TtrpcError | undefined;

  /** Talks over a connected stream, and owns it from here on. */
  constructor(stream: Duplex) {
    const ended = Promise.withResolvers<TtrpcError>();
    this.closed = ended.promise;
    this.#connection = new FrameConnection(stream, {
      onFrame: (frame) => this.#receive(frame),
      onEnd: (reason) => {
        this.#failure = reason;
        for (const call of this.#calls.values()) call.fail(reason);
        this.#calls.clear();
        ended.resolve(reason);
      },
      holdWhileBlocked: false,
    });
  }

  /**
   * Connects to the unix socket at `path`; an abstract one's begins with a zero character. Throws `unavailable` where nobody listens,
   * `deadlineExceeded` after `timeoutMs`, or the signal's reason.
   */
  static async connect(path: string, options: WaitOptions = {}): Promise<TtrpcClient> {
    options.signal?.throwIfAborted();
    const shown = path.replace("\0", "@");
    const socket = connect({ path });
    const { promise, resolve, reject } = Promise.withResolvers<void>();
    const forget = limit(options, `connecting to ${shown}`, reject);
    const refused = (cause: Error): void => reject(new TtrpcError(GrpcCode.unavailable, `cannot connect to ${shown}`, { cause }));
    socket.once("connect", resolve);
    socket.once("error", refused);
    try {
      await promise;
      socket.off("error", refused);
      return new TtrpcClient(socket);
    } catch (error) {
      socket.destroy();
      throw error;
    } finally {
      forget();
    }
  }

  /**
   * Calls a method that gives one answer. Throws a TtrpcError: the server's, `unavailable` where the connection has ended,
   * `deadlineExceeded` after `timeoutMs`, `resourceExhausted` where the request is longer than 4 MiB. Throws the signal's reason when it aborts.
   */
  async call<S extends ServiceDefinition, K extends SingleMethod<S>>(
    service: S,
    method: K,
    input: CallInput<S["methods"][K]>,
    options: CallOptions = {},
  ): Promise<Response<S["methods"][K]>> {
    options.signal?.throwIfAborted();
    const { name, definition } = find(service, method);
    const { promise, resolve, reject } = Promise.withResolvers<unknown>();
    const call = singleAnswer(name, definition.responseType, { resolve, reject });
    const streamId = this.#open(service, definition, input, options, call);
    const forget = limit(options, name, reject);
    if (definition.requestStream) void this.#send(streamId, call, definition, input as AsyncIterable<unknown>);
    try {
      return (await promise) as Response<S["methods"][K]>;
    } finally {
      forget();
      this.#leave(streamId, definition);
    }
  }

  /**
   * Calls a method that gives a stream of answers, once these are asked for. They must be read to their end, or left (`break`): a stream that
   * is left alone stops the whole connection once it is full. Reading throws as `call` does; what came before the error is read before it.
   */
  async *stream<S extends ServiceDefinition, K extends StreamMethod<S>>(
    service: S,
    method: K,
    input: CallInput<S["methods"][K]>,
    options: CallOptions = {},
  ): AsyncGenerator<Response<S["methods"][K]>, void, void> {
    options.signal?.throwIfAborted();
    const { name, definition } = find(service, method);
    const answers = new MessageQueue<Response<S["methods"][K]>>(() => this.#connection.hold());
    const call = streamedAnswers(name, definition.responseType, answers);
    const streamId = this.#open(service, definition, input, options, call);
    const forget = limit(options, name, (reason) => answers.end(reason));
    if (definition.requestStream) void this.#send(streamId, call, definition, input as AsyncIterable<unknown>);
    try {
      yield* answers;
    } finally {
      forget();
      this.#leave(streamId, definition);
    }
  }

  /** Ends the connection: all that is pending rejects. */
  async close(): Promise<void> {
    this.#connection.destroy(new TtrpcError(GrpcCode.unavailable, "the ttrpc connection was closed"));
    await this.#connection.closed;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.close();
  }

  /** Sends the request, and gives the stream that its answers come on. */
  #open(service: ServiceDefinition, definition: MethodDefinition, input: unknown, options: CallOptions, call: ClientCall): number {
    if (this.#failure !== undefined) throw this.#failure;
    const { requestStream, responseStream } = definition;
    const request = WireRequest.encode({
      service: service.fullName,
      method: definition.name,
      payload: requestStream ? Buffer.alloc(0) : Buffer.from(encodePartial(definition.requestType, input)),
      timeoutNano: options.timeoutMs === undefined ? 0n : BigInt(Math.ceil(options.timeoutMs * 1e6)),
      metadata: Object.entries(options.metadata ?? {}).map(([key, value]) => ({ key, value })),
    }).finish();
    if (request.length > maxDataBytes) throw tooLong(request.length);
    const streamId = this.#nextStreamId;
    if (streamId > maxStreamId) throw new TtrpcError(GrpcCode.unavailable, "the ttrpc connection has no stream left");
    this.#nextStreamId += 2;
    this.#calls.set(streamId, call);
    const moreFollows = requestStream ? Flag.remoteOpen : Flag.remoteClosed;
    this.#connection.send(streamId, FrameType.request, requestStream || responseStream ? moreFollows : 0, request);
    return streamId;
  }

  /** Nobody waits for the call any more: the server has answered, or it was given up. */
  #leave(streamId: number, { requestStream }: MethodDefinition): void {
    if (requestStream && this.#calls.has(streamId)) this.#calls.set(streamId, discarded);
    else this.#calls.delete(streamId);
  }

  /**
   * Sends a stream of requests, as fast as the server reads, as long as somebody waits for the answer, and then the stream's end. Where the
   * server has ended the stream, nothing is sent on it any more: Go's ttrpc up to 1.2.7, and so containerd as a whole, dies of that.
   */
  async #send(streamId: number, call: ClientCall, { requestType }: MethodDefinition, requests: AsyncIterable<unknown>): Promise<void> {
    try {
      for await (const request of requests) {
        if (this.#calls.get(streamId) !== call) break;
        this.#connection.send(streamId, FrameType.data, 0, encodePartial(requestType, request));
        await this.#connection.ready();
      }
    } catch (error) {
      call.fail(error instanceof Error ? error : new Error(String(error)));
    }
    if (this.#calls.has(streamId)) this.#connection.send(streamId, FrameType.data, Flag.remoteClosed | Flag.noData, empty);
  }

  #receive(frame: Frame): void {
    const call = this.#calls.get(frame.streamId);
    // A call that was given up may still be answered; what is neither a response nor data belongs to a later version of the protocol.
    if (call === undefined || (frame.type !== FrameType.response && frame.type !== FrameType.data)) return;
    try {
      if (call.receive(frame)) this.#calls.delete(frame.streamId);
    } catch (error) {
      this.#calls.delete(frame.streamId);
      call.fail(error as Error); // a TtrpcError: all that `receive` throws
    }
  }
}

function find(service: ServiceDefinition, method: string): { name: string; definition: MethodDefinition } {
  const definition = service.methods[method];
  if (definition === undefined) throw new TtrpcError(GrpcCode.unimplemented, `method ${service.fullName}/${method}`);
  return { name: `${service.fullName}/${definition.name}`, definition };
}

/** Calls `giveUp` at the timeout or the abort, whichever is first; what it gives ends that. */
function limit({ timeoutMs, signal }: WaitOptions, what: string, giveUp: (reason: Error) => void): () => void {
  const timer =
    timeoutMs === undefined
      ? undefined
      : setTimeout(() => giveUp(new TtrpcError(GrpcCode.deadlineExceeded, `${what} did not end within ${timeoutMs} ms`)), timeoutMs);
  const aborted = (): void => giveUp(signal?.reason instanceof Error ? signal.reason : new Error("aborted", { cause: signal?.reason }));
  if (signal?.aborted === true) aborted();
  signal?.addEventListener("abort", aborted);
  return () => {
    clearTimeout(timer);
    signal?.removeEventListener("abort", aborted);
  };
}
