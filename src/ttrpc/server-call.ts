import { GrpcCode } from "../errors.ts";
import type { Request as WireRequest } from "../gen/ttrpc/ttrpc.ts";
import type { MessageQueue } from "./message-queue.ts";
import type { CallContext, MethodDefinition } from "./service.ts";
import { TtrpcError } from "./ttrpc-error.ts";

/** The longest time that a timer takes; a call that waits longer than these 24 days waits without end. */
const maxTimerMs = 2 ** 31 - 1;

/** A handler without its types: the server has decoded what it gets, and encodes what it gives. */
export type AnyHandler = (input: unknown, context: CallContext) => unknown;

/** A method that is served. */
export interface ServedMethod {
  readonly definition: MethodDefinition;
  readonly handler: AnyHandler;
  /** Whether it is called while the server is closing as well. */
  readonly toTheEnd: boolean;
}

/** A call that is being carried out: from its request to the end of its handler, which may be later than its answer. */
export class ServerCall {
  readonly streamId: number;
  /** How long the request was, which the handler may hold. */
  readonly bytes: number;
  /** Such as containerd.task.v2.Task/Create. */
  readonly name: string;
  readonly served: ServedMethod;
  readonly context: CallContext;
  /** The stream of requests, where the method has one. */
  readonly requests: MessageQueue<unknown> | undefined;
  /** Nothing more is sent for this call. */
  answered = false;
  readonly #controller = new AbortController();
  #timer: NodeJS.Timeout | undefined;

  constructor(streamId: number, request: WireRequest, served: ServedMethod, requests: MessageQueue<unknown> | undefined) {
    this.streamId = streamId;
    this.bytes = request.payload.length;
    this.name = `${request.service}/${request.method}`;
    this.served = served;
    this.requests = requests;
    const metadata = new Map<string, string[]>();
    for (const { key, value } of request.metadata) {
      const values = metadata.get(key);
      if (values === undefined) metadata.set(key, [value]);
      else values.push(value);
    }
    this.context = { signal: this.#controller.signal, metadata };
  }

  /** Calls `expired` when the caller's time is up. */
  limit(timeoutNano: bigint, expired: (reason: TtrpcError) => void): void {
    if (timeoutNano === 0n) return;
    // Negative: it was up before the request was sent.
    const timeoutMs = timeoutNano < 0n ? 0 : Math.ceil(Number(timeoutNano) / 1e6);
    if (timeoutMs > maxTimerMs) return;
    const late = new TtrpcError(GrpcCode.deadlineExceeded, `${this.name} did not end within ${timeoutMs} ms`);
    this.#timer = setTimeout(() => expired(late), timeoutMs);
  }

  /** Tells the handler that it works for nobody any more. */
  abort(reason: TtrpcError): void {
    this.answered = true;
    this.#controller.abort(reason);
    this.requests?.end(reason);
    this.finish();
  }

  /** The time limit is off. */
  finish(): void {
    clearTimeout(this.#timer);
  }
}
