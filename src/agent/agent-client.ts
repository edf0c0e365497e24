/** The client of the agent in the guest: promises for calls, streams for standard streams, and a deadline for everything that should end. */
import {
  Client,
  type ClientDuplexStream,
  type ClientReadableStream,
  connectivityState,
  Metadata,
  type MethodDefinition,
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
  type WaitProcessRequest,
  type WaitProcessResponse,
  type WriteStdinRequest,
  type WriteStdinResponse,
} from "../gen/agent/v1/agent.ts";
import { AgentConnection, streamWindowBytes } from "./agent-connection.ts";
import { agentError } from "./agent-error.ts";
import { BulkCall, type Codec } from "./bulk-call.ts";
import { newNonce } from "./dial.ts";

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

/** A process's standard input, open for writing. */
export interface StdinCall {
  /** Names the process: first of all. */
  readonly begin: (target: { readonly containerId: string; readonly processId: string }) => void;
  /** Answers false where nothing more should be written until `onDrain`'s listener is told. The bytes must not change until they have left. */
  readonly write: (data: Uint8Array) => boolean;
  readonly onDrain: (listener: () => void) => void;
  /** The end of the file. */
  readonly end: () => void;
}

/** The field of WriteStdinRequest that holds the bytes. */
const stdinField = 3;

export class AgentClient {
  readonly #client: Client;
  readonly #connection: AgentConnection;
  readonly #deadlineMs: number;
  #closed = false;

  /**
   * `socketPath`: the unix socket behind which the channel is. `deadlineMs`: of each call that does not say otherwise. `nonce`: of the dial, where the guest has
   * been told which one may break into a session.
   */
  constructor(socketPath: string, deadlineMs: number, nonce = newNonce()) {
    this.#deadlineMs = deadlineMs;
    this.#connection = new AgentConnection(nonce);
    this.#client = new Client(`unix:${socketPath}`, this.#connection.credentials, {
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

  /** One call, one answer. Throws the agent's error in husk's words; `deadline` where no answer came in time. `needless`: gives the call up, for the agent as well. */
  call<M extends PromptMethod>(
    method: M,
    request: PartialRequest<M>,
    deadlineMs = this.#deadlineMs,
    needless?: AbortSignal,
  ): Promise<Response<M>> {
    const { answer, cancel } = this.#unary(method, request, Date.now() + deadlineMs);
    needless?.addEventListener("abort", cancel);
    return answer;
  }

  /** Waits for the end of a process, however long it takes; `cancel` gives up. */
  waitProcess(request: WaitProcessRequest): { readonly answer: Promise<WaitProcessResponse>; readonly cancel: () => void } {
    return this.#unary("waitProcess", request, Number.POSITIVE_INFINITY);
  }

  /** Opens a process's standard input; not once the client is closed. `onAnswer` is told once the agent takes no more, with the error where there was one. */
  writeStdin(onAnswer: (error?: HuskError) => void): StdinCall {
    const call: BulkCall<WriteStdinRequest, WriteStdinResponse> = new BulkCall(this.#connection.session, codec("writeStdin"));
    call.on("end", () => onAnswer());
    call.on("error", (error) => onAnswer(agentError("WriteStdin", error)));
    return {
      begin: (target) => call.write({ ...target, data: Buffer.alloc(0) }),
      write: (data) => call.writeBytes(stdinField, data),
      onDrain: (listener) => void call.on("drain", listener),
      end: () => call.end(),
    };
  }

  /** Opens one of a process's outputs, whose bytes come as they are; not once the client is closed. Cancelling the call closes the reading end. */
  readOutput(request: ReadOutputRequest): BulkCall<ReadOutputRequest, Buffer> {
    const call: BulkCall<ReadOutputRequest, Buffer> = new BulkCall(this.#connection.session, { ...codec("readOutput"), decode: "bytes" });
    call.write(request);
    call.end();
    return call;
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
    this.#connection.close();
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

  #serverStream<M extends "events">(method: M, request: PartialRequest<M>): ClientReadableStream<Response<M>> {
    const { path, requestSerialize, responseDeserialize } = definition(method);
    const message = AgentServiceDefinition.methods[method].requestType.fromPartial(request) as Request<M>;
    return this.#client.makeServerStreamRequest(path, requestSerialize, responseDeserialize, message);
  }
}

function wasClosed(): HuskError {
  return new HuskError("guest", "the channel to the guest's agent was closed");
}

/** A method of the generated definition as a bulk call wants it. */
function codec<M extends MethodName>(method: M): Codec<Request<M>, Response<M>> {
  const { path, requestSerialize: encode, responseDeserialize: decode } = definition(method);
  return { path, encode, decode };
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
