/** The client of the agent in the guest: promises for calls, streams for standard streams, and a deadline for everything that should end. */
import { subscribe } from "node:diagnostics_channel";
import type { ClientHttp2Stream, Http2Session } from "node:http2";
import {
  Client,
  type ClientDuplexStream,
  type ClientReadableStream,
  type ClientWritableStream,
  connectivityState,
  Metadata,
  type MethodDefinition,
  type ServiceError,
} from "@grpc/grpc-js";
import { HuskError } from "../errors.ts";
import {
  AgentServiceDefinition,
  type ConnectLoopbackRequest,
  type ConnectLoopbackResponse,
  type Event,
  type NameAnswer,
  type NameQuery,
  type ReadOutputRequest,
  type ReadOutputResponse,
  type WaitProcessRequest,
  type WaitProcessResponse,
  type WriteStdinRequest,
  type WriteStdinResponse,
} from "../gen/agent/v1/agent.ts";
import { agentError } from "./agent-error.ts";
import { DialCredentials } from "./dial.ts";

type Methods = typeof AgentServiceDefinition.methods;
type MethodName = keyof Methods;
type Request<M extends MethodName> = ReturnType<Methods[M]["requestType"]["create"]>;
type PartialRequest<M extends MethodName> = Parameters<Methods[M]["requestType"]["fromPartial"]>[0];
type Response<M extends MethodName> = ReturnType<Methods[M]["responseType"]["create"]>;

/** The calls that are streams both ways. */
type DuplexMethod = "resolveNames" | "connectLoopback";

/** The calls that take one message, answer one, and must end soon. */
type PromptMethod = Exclude<MethodName, "writeStdin" | "readOutput" | "events" | "waitProcess" | DuplexMethod>;

/** The largest message either way: a spec is bounded at 4 MiB, a chunk of output at 1 MiB. */
const maxMessageBytes = 8 * 1024 * 1024;

/** How much the guest may send on one stream before it is read. */
const streamWindowBytes = 1024 * 1024;

/** The largest HTTP/2 frame that the guest may send. At the protocol's default, 16 KiB, bulk output drowns in frames. */
const maxFrameBytes = 256 * 1024;

/** Sessions whose peer knows that. */
const widened = new WeakSet<Http2Session>();

// grpc-js has no option for it, and hides its sessions; Node shows them.
// https://nodejs.org/docs/latest-v24.x/api/diagnostics_channel.html#http2
subscribe("http2.client.stream.created", (message) => {
  const { session } = (message as { readonly stream: ClientHttp2Stream }).stream;
  if (session === undefined || widened.has(session)) return;
  widened.add(session);
  session.settings({ maxFrameSize: maxFrameBytes });
});

export class AgentClient {
  readonly #client: Client;
  readonly #deadlineMs: number;
  #closed = false;

  /** `socketPath`: the unix socket behind which the channel is. `deadlineMs`: of each call that does not say otherwise. */
  constructor(socketPath: string, deadlineMs: number) {
    this.#deadlineMs = deadlineMs;
    this.#client = new Client(`unix:${socketPath}`, new DialCredentials(), {
      "grpc.client_idle_timeout_ms": 2 ** 31 - 1,
      "grpc.max_receive_message_length": maxMessageBytes,
      "grpc.max_send_message_length": maxMessageBytes,
      "grpc-node.flow_control_window": streamWindowBytes,
      "grpc.service_config_disable_resolution": 1,
      "grpc.enable_retries": 0,
    });
  }

  /**
   * Waits until the agent has accepted the dial. Throws `deadline` where it did not within `deadlineMs`, `guest` once the client is closed: the library's own
   * wait revives a closed channel, and goes on to its deadline.
   */
  ready(deadlineMs: number): Promise<void> {
    const channel = this.#client.getChannel();
    const deadline = Date.now() + deadlineMs;
    return new Promise((resolve, reject) => {
      const look = (late?: Error): void => {
        if (this.#closed) return reject(wasClosed());
        if (late !== undefined) {
          return reject(new HuskError("deadline", `the guest's agent did not answer within ${deadlineMs} ms`, { cause: late }));
        }
        const state = channel.getConnectivityState(true);
        if (state === connectivityState.READY) resolve();
        else channel.watchConnectivityState(state, deadline, look);
      };
      look();
    });
  }

  /** Whether `close` was called: nothing more can be opened. */
  get closed(): boolean {
    return this.#closed;
  }

  /** One call, one answer. Throws the agent's error in husk's words; `deadline` where no answer came in time. */
  call<M extends PromptMethod>(method: M, request: PartialRequest<M>, deadlineMs = this.#deadlineMs): Promise<Response<M>> {
    return this.#unary(method, request, Date.now() + deadlineMs).answer;
  }

  /** Waits for the end of a process, however long it takes; `cancel` gives up. */
  waitProcess(request: WaitProcessRequest): { readonly answer: Promise<WaitProcessResponse>; readonly cancel: () => void } {
    return this.#unary("waitProcess", request, Number.POSITIVE_INFINITY);
  }

  /** Opens a process's standard input; not once the client is closed. `onAnswer` is told once the agent takes no more, with the error where there was one. */
  writeStdin(onAnswer: (error?: HuskError) => void): ClientWritableStream<WriteStdinRequest> {
    const { path, requestSerialize, responseDeserialize } = definition("writeStdin");
    const callback = (error: ServiceError | null): void => onAnswer(error === null ? undefined : agentError("WriteStdin", error));
    return this.#client.makeClientStreamRequest<WriteStdinRequest, WriteStdinResponse>(
      path,
      requestSerialize,
      responseDeserialize,
      callback,
    );
  }

  /** Opens one of a process's outputs; not once the client is closed. Cancelling the call closes the reading end. */
  readOutput(request: ReadOutputRequest): ClientReadableStream<ReadOutputResponse> {
    return this.#serverStream("readOutput", request);
  }

  /** Opens the stream of what happens in the sandbox. */
  events(): ClientReadableStream<Event> {
    return this.#serverStream("events", {});
  }

  /** Brings the guest its name server: its questions come, answers go. The event `metadata` says that the guest has it. */
  resolveNames(): ClientDuplexStream<NameAnswer, NameQuery> {
    return this.#duplexStream("resolveNames");
  }

  /** Opens a connection to the guest's loopback addresses, as its first message says. The event `metadata` says that it is there. */
  connectLoopback(): ClientDuplexStream<ConnectLoopbackRequest, ConnectLoopbackResponse> {
    return this.#duplexStream("connectLoopback");
  }

  close(): void {
    this.#closed = true;
    this.#client.close();
  }

  #unary<M extends MethodName>(
    method: M,
    request: PartialRequest<M>,
    deadline: number,
  ): { readonly answer: Promise<Response<M>>; readonly cancel: () => void } {
    const { path, requestSerialize, responseDeserialize } = definition(method);
    const { promise, resolve, reject } = Promise.withResolvers<Response<M>>();
    if (this.#closed) {
      reject(wasClosed()); // the library would throw
      return { answer: promise, cancel: () => {} };
    }
    const message = AgentServiceDefinition.methods[method].requestType.fromPartial(request) as Request<M>;
    const call = this.#client.makeUnaryRequest(
      path,
      requestSerialize,
      responseDeserialize,
      message,
      new Metadata(),
      { deadline },
      (error, answer) => {
        if (error !== null) reject(agentError(AgentServiceDefinition.methods[method].name, error));
        else if (answer === undefined) reject(new HuskError("guest", `the guest's agent sent no answer to ${method}`));
        else resolve(answer);
      },
    );
    return { answer: promise, cancel: () => call.cancel() };
  }

  #duplexStream<M extends DuplexMethod>(method: M): ClientDuplexStream<Request<M>, Response<M>> {
    const { path, requestSerialize, responseDeserialize } = definition(method);
    return this.#client.makeBidiStreamRequest(path, requestSerialize, responseDeserialize);
  }

  #serverStream<M extends "readOutput" | "events">(method: M, request: PartialRequest<M>): ClientReadableStream<Response<M>> {
    const { path, requestSerialize, responseDeserialize } = definition(method);
    const message = AgentServiceDefinition.methods[method].requestType.fromPartial(request) as Request<M>;
    return this.#client.makeServerStreamRequest(path, requestSerialize, responseDeserialize, message);
  }
}

function wasClosed(): HuskError {
  return new HuskError("guest", "the channel to the guest's agent was closed");
}

/** A method of the generated definition in grpc-js's form. */
function definition<M extends MethodName>(method: M): MethodDefinition<Request<M>, Response<M>> {
  const { name, requestStream, responseStream, requestType, responseType } = AgentServiceDefinition.methods[method];
  const encode = requestType.encode as (message: unknown) => { finish(): Uint8Array };
  const decode = responseType.decode as (bytes: Uint8Array) => Response<M>;
  const notServed = (): never => {
    throw new HuskError("internal", `${name} is served by the guest`);
  };
  return {
    path: `/${AgentServiceDefinition.fullName}/${name}`,
    requestStream,
    responseStream,
    requestSerialize: (message) => Buffer.from(encode(message).finish()),
    responseDeserialize: decode,
    responseSerialize: notServed,
    requestDeserialize: notServed,
  };
}
