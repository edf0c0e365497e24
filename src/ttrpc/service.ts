/**
 * Services as ts-proto generates them (outputServices=generic-definitions), and the types that follow from them: what a handler takes and
 * gives, what a caller sends and gets.
 */

/** A message's functions, as far as they are needed here. */
interface MessageFunctions {
  encode(message: never): { finish(): Uint8Array };
  decode(bytes: Uint8Array): unknown;
  fromPartial(partial: never): unknown;
}

export interface MethodDefinition {
  /** As it is on the wire. */
  readonly name: string;
  readonly requestType: MessageFunctions;
  readonly requestStream: boolean;
  readonly responseType: MessageFunctions;
  readonly responseStream: boolean;
}

export interface ServiceDefinition {
  readonly fullName: string;
  readonly methods: Readonly<Record<string, MethodDefinition>>;
}

export type MethodName<S extends ServiceDefinition> = keyof S["methods"] & string;

/** A whole message, as it is received. */
type Message<F extends MessageFunctions> = ReturnType<F["decode"]>;

/** A message as it may be written: what is left out is empty. */
type PartialMessage<F extends MessageFunctions> = Parameters<F["fromPartial"]>[0];

export type Request<M extends MethodDefinition> = Message<M["requestType"]>;
export type Response<M extends MethodDefinition> = Message<M["responseType"]>;
export type PartialRequest<M extends MethodDefinition> = PartialMessage<M["requestType"]>;
export type PartialResponse<M extends MethodDefinition> = PartialMessage<M["responseType"]>;

/** What a caller gives to a call: a message, or a source of them. */
export type CallInput<M extends MethodDefinition> = M["requestStream"] extends true ? AsyncIterable<PartialRequest<M>> : PartialRequest<M>;

/** What a handler knows of its call. */
export interface CallContext {
  /** Aborted when the caller is gone or its time is up: the answer would reach nobody. */
  readonly signal: AbortSignal;
  /** What the caller sent besides the request; a key may come more than once. */
  readonly metadata: ReadonlyMap<string, readonly string[]>;
}

/** What a handler gives for a single answer; nothing where the answer has no fields. */
type Answer<M extends MethodDefinition> = keyof Response<M> extends never ? object | void : PartialResponse<M>;

/**
 * Carries one call out. A stream of requests must be read, or the handler end: one that is left alone stops the whole connection once it
 * is full. A stream of answers is asked for the next one when the connection has room for it.
 */
export type Handler<M extends MethodDefinition> = (
  input: M["requestStream"] extends true ? AsyncIterable<Request<M>> : Request<M>,
  context: CallContext,
) => M["responseStream"] extends true ? AsyncIterable<PartialResponse<M>> : Promise<Answer<M>> | Answer<M>;

/** A service's handlers. A method without one is answered with "not implemented". */
export type Handlers<S extends ServiceDefinition> = { readonly [K in MethodName<S>]?: Handler<S["methods"][K]> };

/** Encodes a message of which parts may be left out. The types are checked where the message is named: in `Handlers` and in `TtrpcClient`. */
export function encodePartial(type: MessageFunctions, partial: unknown): Uint8Array {
  return type.encode(type.fromPartial(partial as never) as never).finish();
}
