/**
 * A client of QEMU's machine protocol (QMP) over any byte stream: typed commands with ids, deadlines and signals; typed events.
 * Knows nothing of husk but its errors. QEMU is taken for hostile: what it sends is bounded and checked, and the first thing that is no
 * QMP ends the connection.
 *
 *     await using qmp = await QmpClient.open(socket, { deadlineMs: 5000 });
 *     qmp.on("SHUTDOWN", ({ reason }) => console.log(reason));
 *     await qmp.execute("cont");
 *     await qmp.executeUntil("device_del", { id: "nic1" }, "DEVICE_DELETED", ({ device }) => device === "nic1");
 */
import type { Duplex } from "node:stream";
import { HuskError } from "../errors.ts";
import { read, ShapeError } from "../narrow.ts";
import type { QmpArguments, QmpCommandName, QmpReturns } from "./commands.ts";
import { printable, QmpError } from "./errors.ts";
import { type AnyListener, EventHub, type Listener } from "./event-hub.ts";
import type { QmpEventName, QmpEvents } from "./events.ts";
import { LineSplitter } from "./lines.ts";
import { decodeMessage, encodeCommand, type Greeting, type Message } from "./message.ts";
import { returnReaders } from "./returns.ts";
import { DEFAULT_DEADLINE_MS, Waiter, type WaitOptions } from "./waiter.ts";

export type { QmpArguments, QmpCommandName, QmpReturns } from "./commands.ts";
export { QmpError } from "./errors.ts";
export type { QmpEventName, QmpEvents } from "./events.ts";
export type { WaitOptions } from "./waiter.ts";

/** The longest answer or event that is taken. */
const MAX_LINE_BYTES = 16 * 1024 * 1024;

const NEGOTIATE = "qmp_capabilities";

export interface OpenOptions extends WaitOptions {
  /** The longest line that QEMU may send; 16 MiB. */
  readonly maxLineBytes?: number;
}

export interface ExecuteOptions extends WaitOptions {
  /** Sent past the queue of commands; QEMU takes only few commands so (migrate-pause, yank, ...). Needs the capability "oob". */
  readonly outOfBand?: boolean;
}

/** Arguments may be left out where none of them is required. */
export type ExecuteRest<C extends QmpCommandName> =
  object extends QmpArguments<C> ? [args?: QmpArguments<C>, options?: ExecuteOptions] : [args: QmpArguments<C>, options?: ExecuteOptions];

interface Pending {
  readonly command: string;
  readonly waiter: Waiter<unknown>;
}

export class QmpClient implements AsyncDisposable {
  /** Resolves with the reason when the connection has ended, by whatever it was; never rejects. */
  readonly closed: Promise<HuskError>;
  readonly #stream: Duplex;
  readonly #splitter: LineSplitter;
  readonly #events = new EventHub();
  readonly #ended = Promise.withResolvers<HuskError>();
  readonly #streamClosed = Promise.withResolvers<void>();
  readonly #greeted = Promise.withResolvers<Greeting>();
  readonly #pending = new Map<number, Pending>();
  /** Ids of commands that were given up: QEMU may still answer them. */
  readonly #abandoned = new Set<number>();
  #greeting: Greeting | undefined;
  #outOfBand = false;
  #nextId = 1;
  /** Complete lines that are not yet dispatched. */
  #lines: Buffer[] = [];
  /** While true, lines wait: see `#handle`. */
  #held = false;
  /** Why the connection ends as soon as the lines that came before are dispatched. */
  #ending: HuskError | undefined;
  /** Why the connection ended. */
  #failure: HuskError | undefined;

  private constructor(stream: Duplex, maxLineBytes: number) {
    this.#stream = stream;
    this.#splitter = new LineSplitter(maxLineBytes);
    this.closed = this.#ended.promise;
    // An end before the greeting reaches whoever waits for that; where nobody does any more, it is told by `closed`.
    this.#greeted.promise.catch(() => {});
    stream.on("data", (chunk: Buffer) => this.#receive(chunk));
    stream.on("error", (cause) => this.#end(new HuskError("vmm", "the QMP connection broke", { cause })));
    stream.once("end", () => this.#end(new HuskError("vmm", "QEMU closed the QMP connection")));
    stream.once("close", () => {
      this.#end(new HuskError("vmm", "QEMU closed the QMP connection"));
      this.#streamClosed.resolve();
    });
  }

  /**
   * Waits for QEMU's greeting on `stream` and ends the negotiation; the deadline (10 s where none is named) holds for both. The client
   * owns the stream from here on, and destroys it where this fails.
   *
   * No event is lost: those that come right behind the negotiation are delivered in the next turn of the event loop, to the listeners
   * that were added by then.
   */
  static async open(stream: Duplex, options: OpenOptions = {}): Promise<QmpClient> {
    const client = new QmpClient(stream, options.maxLineBytes ?? MAX_LINE_BYTES);
    try {
      await client.#negotiate(options);
      return client;
    } catch (error) {
      await client.close();
      throw error;
    }
  }

  /** A client on `stream` of a QEMU with which another connection has been negotiated before, in the same place: it has greeted, and will not do so again. */
  static resume(stream: Duplex, greeting: Greeting): QmpClient {
    const client = new QmpClient(stream, MAX_LINE_BYTES);
    client.#greeting = greeting;
    client.#greeted.resolve(greeting);
    return client;
  }

  /** What QEMU said of itself, and which capabilities it offered. */
  get greeting(): Greeting {
    if (this.#greeting === undefined) throw new HuskError("internal", "the QMP greeting was asked for before it came");
    return this.#greeting;
  }

  /**
   * Runs a command and gives its checked answer. Rejects with a QmpError where QEMU says no, with code "deadline" after the deadline
   * (10 s where none is named), with the signal's reason, or with the reason for which the connection ended.
   */
  async execute<C extends QmpCommandName>(command: C, ...[args, options]: ExecuteRest<C>): Promise<QmpReturns<C>> {
    const value = await this.executeRaw(command, args, options);
    try {
      return read(returnReaders[command], value);
    } catch (error) {
      if (!(error instanceof ShapeError)) throw error;
      throw new HuskError("vmm", `QEMU answered ${command} with nonsense: ${printable(error.message)}`);
    }
  }

  /** The way out for commands that `execute` does not know, and for answers with more in them than it reads: nothing is checked. */
  async executeRaw(command: string, args?: object, options: ExecuteOptions = {}): Promise<unknown> {
    if (this.#failure !== undefined) throw this.#failure;
    if (options.outOfBand && !this.#outOfBand) throw new HuskError("vmm", `QEMU's monitor takes no out-of-band commands: ${command}`);
    options.signal?.throwIfAborted();
    const id = this.#nextId++;
    const line = encodeCommand(id, command, args, options.outOfBand ?? false);
    const late = (deadlineMs: number) => `QEMU did not answer ${command} within ${deadlineMs} ms`;
    const waiter = new Waiter<unknown>(options, late, () => {
      this.#pending.delete(id);
      this.#abandoned.add(id);
    });
    this.#pending.set(id, { command, waiter });
    this.#stream.write(line);
    return waiter.promise;
  }

  /** Calls `listener` at every such event from now on; gives the function that ends that. */
  on<E extends QmpEventName>(event: E, listener: Listener<E>): () => void {
    return this.#events.on(event, listener);
  }

  /** Calls `listener` at every event, those too that husk does not know, whose data is unchecked; gives the function that ends that. */
  onAny(listener: AnyListener): () => void {
    return this.#events.onAny(listener);
  }

  /**
   * The first such event, from now on, that `predicate` takes. To wait for what a command brings about, use `executeUntil`: the event
   * may come before the answer. Rejects as `execute` does; a rejection that nobody awaits is no unhandled one.
   */
  waitFor<E extends QmpEventName>(
    event: E,
    predicate: (data: QmpEvents[E]) => boolean = () => true,
    options: WaitOptions = {},
  ): Promise<QmpEvents[E]> {
    return this.#events.waitFor(event, predicate, options);
  }

  /** Runs a command whose work is done only with an event, and gives the event's data. The deadline holds for both together. */
  async executeUntil<C extends QmpCommandName, E extends QmpEventName>(
    command: C,
    args: QmpArguments<C>,
    event: E,
    predicate: (data: QmpEvents[E]) => boolean,
    options: WaitOptions = {},
  ): Promise<QmpEvents[E]> {
    const over = new AbortController();
    const signal = options.signal === undefined ? over.signal : AbortSignal.any([options.signal, over.signal]);
    const seen = this.waitFor(event, predicate, { ...options, signal });
    try {
      await this.executeRaw(command, args, options);
      return await seen;
    } finally {
      over.abort();
    }
  }

  /** Ends the connection: all that is pending rejects. QEMU itself goes on. */
  async close(): Promise<void> {
    this.#fail(new HuskError("vmm", "the QMP connection was closed"));
    await this.#streamClosed.promise;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.close();
  }

  async #negotiate(options: OpenOptions): Promise<void> {
    const { deadlineMs = DEFAULT_DEADLINE_MS, signal } = options;
    const end = performance.now() + deadlineMs;
    const waiter = new Waiter<Greeting>(
      { deadlineMs, signal },
      () => `QEMU did not send its QMP greeting within ${deadlineMs} ms`,
      () => {},
    );
    this.#greeted.promise.then(
      (greeting) => waiter.resolve(greeting),
      (error: unknown) => waiter.reject(error),
    );
    const { capabilities } = await waiter.promise;
    const oob = capabilities.includes("oob");
    await this.executeRaw(NEGOTIATE, oob ? { enable: ["oob"] } : {}, { deadlineMs: Math.max(1, end - performance.now()), signal });
    this.#outOfBand = oob;
  }

  #receive(chunk: Buffer): void {
    try {
      for (const line of this.#splitter.push(chunk)) this.#lines.push(line);
    } catch (error) {
      this.#end(protocolError(error));
    }
    this.#drain();
  }

  /** The connection ends, after what came before the end. */
  #end(reason: HuskError): void {
    this.#ending ??= reason;
    this.#drain();
  }

  #drain(): void {
    while (!this.#held && this.#failure === undefined) {
      const line = this.#lines.shift();
      if (line === undefined) {
        if (this.#ending !== undefined) this.#fail(this.#ending);
        return;
      }
      try {
        this.#handle(decodeMessage(line));
      } catch (error) {
        this.#fail(protocolError(error));
      }
    }
  }

  #handle(message: Message): void {
    if (this.#greeting === undefined && message.kind !== "greeting") throw new Error("expected its greeting first");
    switch (message.kind) {
      case "greeting":
        if (this.#greeting !== undefined) throw new Error("a second greeting");
        this.#greeting = message.greeting;
        this.#greeted.resolve(message.greeting);
        return;
      case "event":
        this.#events.dispatch(message.name, message.data, message.timestamp);
        return;
      case "return": {
        const { command, waiter } = this.#take(message.id) ?? {};
        if (command === NEGOTIATE) this.#hold();
        waiter?.resolve(message.value);
        return;
      }
      case "error": {
        if (message.id === undefined) throw new Error(`it could not read a command: ${message.desc}`);
        const pending = this.#take(message.id);
        pending?.waiter.reject(new QmpError(pending.command, message.class, message.desc));
        return;
      }
    }
  }

  /** The command that an answer belongs to; nothing where it was given up. */
  #take(id: number): Pending | undefined {
    const pending = this.#pending.get(id);
    if (pending === undefined && !this.#abandoned.delete(id)) throw new Error(`an answer to a command that was not sent, ${id}`);
    this.#pending.delete(id);
    return pending;
  }

  /** Lets whoever awaits `open` go on, and add its listeners, before anything that came in the same chunk is dispatched. */
  #hold(): void {
    this.#held = true;
    setImmediate(() => {
      this.#held = false;
      this.#drain();
    });
  }

  #fail(reason: HuskError): void {
    if (this.#failure !== undefined) return;
    this.#failure = reason;
    this.#lines = [];
    this.#greeted.reject(reason);
    for (const { waiter } of this.#pending.values()) waiter.reject(reason);
    this.#pending.clear();
    this.#events.fail(reason);
    this.#ended.resolve(reason);
    this.#stream.destroy();
  }
}

function protocolError(error: unknown): HuskError {
  return new HuskError("vmm", `QEMU broke the QMP protocol: ${printable(error instanceof Error ? error.message : String(error))}`);
}
