/** A D-Bus bus for tests: it answers as a script says, and keeps what it was asked. */
import { mkdtempSync, rmSync } from "node:fs";
import { createServer, type Server, type Socket } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { encodeMessage, type Message, MessageParser, MessageType } from "./message.ts";
import type { DbusValue } from "./types.ts";

/** What the bus does about a call: nothing for undefined. */
export type Script = (call: Message, bus: ScriptedBus) => Answer | undefined;

export type Answer =
  | { readonly signature: string; readonly body: readonly DbusValue[] }
  | { readonly error: string; readonly text: string };

export class ScriptedBus implements AsyncDisposable {
  readonly path: string;
  /** What was called, the bus's own methods aside. */
  readonly calls: Message[] = [];
  /** What the client said before it became one. */
  greeting = "";
  readonly #folder: string;
  readonly #server: Server;
  readonly #script: Script;
  readonly #sockets = new Set<Socket>();
  #serial = 0;

  /** `welcome`: what the client's greeting is answered with. */
  static async open(script: Script, welcome = "OK 0123456789abcdef\r\n"): Promise<ScriptedBus> {
    const bus = new ScriptedBus(script, welcome);
    await new Promise<void>((resolve) => bus.#server.listen(bus.path, resolve));
    return bus;
  }

  private constructor(script: Script, welcome: string) {
    this.#folder = mkdtempSync(join(tmpdir(), "husk-bus-"));
    this.path = join(this.#folder, "bus");
    this.#script = script;
    this.#server = createServer((socket) => this.#serve(socket, welcome));
  }

  /** Sends a signal to every client. */
  signal(from: string, member: string, signature: string, body: readonly DbusValue[]): void {
    const message = { type: MessageType.signal, serial: ++this.#serial, path: "/", interface: from, member, signature, body };
    for (const socket of this.#sockets) socket.write(encodeMessage(message));
  }

  /** Sends bytes as they are to every client. */
  send(bytes: Buffer): void {
    for (const socket of this.#sockets) socket.write(bytes);
  }

  hangUp(): void {
    for (const socket of this.#sockets) socket.destroy();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.hangUp();
    await new Promise((resolve) => this.#server.close(resolve));
    rmSync(this.#folder, { recursive: true });
  }

  #serve(socket: Socket, welcome: string): void {
    this.#sockets.add(socket);
    const parser = new MessageParser();
    let begun = false;
    socket.on("data", (chunk: Buffer) => {
      let rest = chunk;
      if (!begun) {
        const end = chunk.indexOf("BEGIN\r\n");
        this.greeting += chunk.subarray(0, end === -1 ? chunk.length : end).toString("latin1");
        if (end === -1) {
          socket.write(welcome);
          return;
        }
        begun = true;
        rest = chunk.subarray(end + "BEGIN\r\n".length);
      }
      for (const call of parser.push(rest)) this.#answer(socket, call);
    });
    socket.on("error", () => {}); // clients of tests hang up as they like
    socket.on("close", () => this.#sockets.delete(socket));
  }

  #answer(socket: Socket, call: Message): void {
    const own = call.destination === "org.freedesktop.DBus";
    if (!own) this.calls.push(call);
    const answer = own ? { signature: "", body: [] } : this.#script(call, this);
    if (answer === undefined) return;
    const head = { serial: ++this.#serial, replySerial: call.serial };
    socket.write(
      encodeMessage(
        "error" in answer
          ? { ...head, type: MessageType.error, errorName: answer.error, signature: "s", body: [answer.text] }
          : { ...head, type: MessageType.reply, ...answer },
      ),
    );
  }
}
