/** The client of the agent in the guest: promises for calls, streams for standard streams, and a deadline for everything that should end. */
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
import { agentError } from "./agent-error.ts";
import { type Codec, GrpcCall } from "./grpc-call.ts";
import { GrpcConnection } from "./grpc-connection.ts";

type Methods = typeof AgentServiceDefinition.methods;
type MethodName = keyof Methods;
type Request<M extends MethodName> = ReturnType<Methods[M]["requestType"]["create"]>;
type PartialRequest<M extends MethodName> = Parameters<Methods[M]["requestType"]["fromPartial"]>[0];
type Response<M extends MethodName> = ReturnType<Methods[M]["responseType"]["create"]>;

/** The calls that are streams both ways. */
type DuplexMethod = "resolveNames" | "connectLoopback";

/** The calls that take one message, answer one, and must end soon. */
type PromptMethod = Exclude<MethodName, "writeStdin" | "readOutput" | "events" | "waitProcess" | DuplexMethod>;

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
  readonly #connection: GrpcConnection;
  readonly #deadlineMs: number;

  /** `socketPath`: the unix socket behind which the channel is. `deadlineMs`: of each call that does not say otherwise. */
  constructor(socketPath: string, deadlineMs: number) {
    this.#connection = new GrpcConnection(socketPath);
    this.#deadlineMs = deadlineMs;
  }

  /** Waits until the agent has accepted the dial. Throws `deadline` where it did not within `deadlineMs`, `guest` where it cannot, or the client is closed. */
  async ready(deadlineMs: number): Promise<void> {
    const { promise, reject } = Promise.withResolvers<never>();
    const late = (): void => reject(new HuskError("deadline", `the guest's agent did not answer within ${deadlineMs} ms`));
    const timer = setTimeout(late, deadlineMs);
    try {
      await Promise.race([this.#connection.session(), promise]);
    } finally {
      clearTimeout(timer);
    }
  }

  /** Whether `close` was called: nothing more can be opened. */
  get closed(): boolean {
    return this.#connection.closed;
  }

  /** One call, one answer. Throws the agent's error in husk's words; `deadline` where no answer came in time. */
  call<M extends PromptMethod>(method: M, request: PartialRequest<M>, deadlineMs = this.#deadlineMs): Promise<Response<M>> {
    return this.#unary(method, request, deadlineMs).answer;
  }

  /** Waits for the end of a process, however long it takes; `cancel` gives up. */
  waitProcess(request: WaitProcessRequest): { readonly answer: Promise<WaitProcessResponse>; readonly cancel: () => void } {
    return this.#unary("waitProcess", request, undefined);
  }

  /** Opens a process's standard input; not once the client is closed. `onAnswer` is told once the agent takes no more, with the error where there was one. */
  writeStdin(onAnswer: (error?: HuskError) => void): StdinCall {
    const call: GrpcCall<WriteStdinRequest, WriteStdinResponse> = this.#open("writeStdin");
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
  readOutput(request: ReadOutputRequest): GrpcCall<ReadOutputRequest, Buffer> {
    const call: GrpcCall<ReadOutputRequest, Buffer> = new GrpcCall(this.#connection.session(), { ...codec("readOutput"), decode: "bytes" });
    call.write(request);
    call.end();
    return call;
  }

  /** Opens the stream of what happens in the sandbox. */
  events(): GrpcCall<object, Event> {
    const call: GrpcCall<object, Event> = this.#open("events");
    call.write({});
    call.end();
    return call;
  }

  /** Brings the guest its name server: its questions come, answers go. The event `metadata` says that the guest has it. */
  resolveNames(): GrpcCall<NameAnswer, NameQuery> {
    return this.#open("resolveNames");
  }

  /** Opens a connection to the guest's loopback addresses, as its first message says. The event `metadata` says that it is there. */
  connectLoopback(): GrpcCall<ConnectLoopbackRequest, ConnectLoopbackResponse> {
    return this.#open("connectLoopback");
  }

  close(): void {
    this.#connection.close();
  }

  #unary<M extends MethodName>(
    method: M,
    request: PartialRequest<M>,
    deadlineMs: number | undefined,
  ): { readonly answer: Promise<Response<M>>; readonly cancel: () => void } {
    const { promise, resolve, reject } = Promise.withResolvers<Response<M>>();
    if (this.closed) {
      reject(new HuskError("guest", "the channel to the guest's agent was closed"));
      return { answer: promise, cancel: () => {} };
    }
    const call = this.#open(method, deadlineMs);
    call.on("data", resolve);
    call.on("end", () => reject(new HuskError("guest", `the guest's agent sent no answer to ${method}`)));
    call.on("error", (error) => reject(agentError(AgentServiceDefinition.methods[method].name, error)));
    call.write(AgentServiceDefinition.methods[method].requestType.fromPartial(request) as Request<M>);
    call.end();
    return { answer: promise, cancel: () => call.cancel() };
  }

  #open<M extends MethodName>(method: M, deadlineMs?: number): GrpcCall<Request<M>, Response<M>> {
    return new GrpcCall(this.#connection.session(), codec(method), deadlineMs);
  }
}

/** A method of the generated definition as a call wants it. */
function codec<M extends MethodName>(method: M): Codec<Request<M>, Response<M>> {
  const { name, requestType, responseType } = AgentServiceDefinition.methods[method];
  const encode = requestType.encode as (message: unknown) => { finish(): Uint8Array };
  return {
    path: `/${AgentServiceDefinition.fullName}/${name}`,
    encode: (message) => encode(message).finish(),
    decode: responseType.decode as (bytes: Uint8Array) => Response<M>,
  };
}
