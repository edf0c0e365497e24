/**
 * A client of D-Bus: calls, and the signals that were asked for, over a bus's unix socket. Ours, since a library would cost a command more than
 * the few messages that husk has for systemd: those kept for Node parse XML, for interfaces that we know.
 */
import { connect, type Socket } from "node:net";
import { encodeMessage, type Message, MessageParser, MessageType } from "./message.ts";
import { DbusCallError, DbusFormatError, type DbusValue } from "./types.ts";

/** Where the system's bus listens, if the environment names no other place. */
const systemBusPath = "/run/dbus/system_bus_socket";

/** What the bus itself is asked by. */
const bus = { destination: "org.freedesktop.DBus", path: "/org/freedesktop/DBus", interface: "org.freedesktop.DBus" } as const;

/** An object's interface on the bus. */
export interface Remote {
  readonly destination: string;
  readonly path: string;
  readonly interface: string;
}

/** The path of the system's bus. `address`: that of the environment (DBUS_SYSTEM_BUS_ADDRESS), if it has any. */
export function systemBus(address: string | undefined): string {
  const path = address?.split(";").map((each) => /^unix:(?:.*,)?path=([^,]+)/.exec(each)?.[1]);
  return decodeURIComponent(path?.find((each) => each !== undefined) ?? systemBusPath);
}

export class DbusClient implements Disposable {
  readonly #socket: Socket;
  readonly #parser = new MessageParser();
  readonly #calls = new Map<number, PromiseWithResolvers<readonly DbusValue[]>>();
  readonly #onSignal: (signal: Message) => void;
  #failure: Error | undefined;
  #serial = 0;

  /**
   * Connects to the bus at `path`, as the user that the process is. `onSignal` gets each signal that comes. Rejects with the socket's error, or with a
   * DbusFormatError where who listens there is no bus.
   */
  static async connect(path: string, onSignal: (signal: Message) => void): Promise<DbusClient> {
    const socket = connect(path);
    try {
      await authenticate(socket);
    } catch (error) {
      socket.destroy();
      throw error;
    }
    const client = new DbusClient(socket, onSignal);
    await client.call(bus, "Hello");
    return client;
  }

  private constructor(socket: Socket, onSignal: (signal: Message) => void) {
    this.#socket = socket;
    this.#onSignal = onSignal;
    socket.on("data", (chunk: Buffer) => this.#onData(chunk));
    socket.on("error", (error) => this.#fail(error));
    socket.on("close", () => this.#fail(new Error("the bus hung up")));
  }

  /** Calls a method, and resolves to what it returns. Rejects with a DbusCallError where the answer is an error. */
  call(remote: Remote, member: string, signature = "", body: readonly DbusValue[] = []): Promise<readonly DbusValue[]> {
    const serial = ++this.#serial;
    const answer = Promise.withResolvers<readonly DbusValue[]>();
    if (this.#failure !== undefined) answer.reject(this.#failure);
    else {
      this.#calls.set(serial, answer);
      this.#socket.write(encodeMessage({ ...remote, type: MessageType.call, serial, member, signature, body }));
    }
    return answer.promise;
  }

  /** Asks the bus for the signals that match a rule: https://dbus.freedesktop.org/doc/dbus-specification.html#message-bus-routing-match-rules */
  async match(rule: Readonly<Record<string, string>>): Promise<void> {
    const words = Object.entries(rule).map(([key, value]) => `${key}='${value}'`);
    await this.call(bus, "AddMatch", "s", [words.join(",")]);
  }

  /** Hangs up. What has not been answered is rejected. */
  [Symbol.dispose](): void {
    this.#fail(new Error("the connection to the bus was closed"));
    this.#socket.destroy();
  }

  #onData(chunk: Buffer): void {
    try {
      for (const message of this.#parser.push(chunk)) this.#onMessage(message);
    } catch (error) {
      if (!(error instanceof DbusFormatError)) throw error;
      this.#fail(error);
      this.#socket.destroy();
    }
  }

  #onMessage(message: Message): void {
    if (message.type === MessageType.signal) return this.#onSignal(message);
    if (message.type !== MessageType.reply && message.type !== MessageType.error) return; // nobody can call us
    const serial = message.replySerial ?? 0;
    const answer = this.#calls.get(serial);
    this.#calls.delete(serial);
    if (message.type === MessageType.reply) return answer?.resolve(message.body);
    const [text] = message.body;
    answer?.reject(new DbusCallError(message.errorName ?? "unknown", typeof text === "string" ? text : ""));
  }

  #fail(error: Error): void {
    this.#failure ??= error;
    for (const answer of this.#calls.values()) answer.reject(this.#failure);
    this.#calls.clear();
  }
}

/** The longest line that the bus may answer with before it is one. */
const maxLineBytes = 512;

/** Says who we are, which the bus sees by itself: https://dbus.freedesktop.org/doc/dbus-specification.html#auth-protocol */
async function authenticate(socket: Socket): Promise<void> {
  const uid = Buffer.from(String(process.getuid?.() ?? 0)).toString("hex");
  const answered = Promise.withResolvers<string>();
  let said = "";
  const onData = (chunk: Buffer): void => {
    said += chunk.toString("latin1");
    if (said.includes("\r\n") || said.length > maxLineBytes) answered.resolve(said);
  };
  socket.on("data", onData);
  socket.once("error", answered.reject);
  socket.once("close", () => answered.reject(new Error("the bus hung up")));
  socket.write(`\0AUTH EXTERNAL ${uid}\r\n`);
  const line = await answered.promise;
  socket.off("data", onData);
  socket.off("error", answered.reject);
  if (!/^OK [0-9a-f]*\r\n$/.test(line)) throw new DbusFormatError(`the bus does not take us: ${JSON.stringify(line.slice(0, 64).trim())}`);
  socket.write("BEGIN\r\n");
}
