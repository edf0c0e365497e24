/**
 * For tests: the other end of a QMP connection, which does what the test says and nothing else.
 */
import { type Duplex, duplexPair } from "node:stream";
import { LineSplitter } from "./lines.ts";

export const GREETING = { QMP: { version: { qemu: { major: 7, minor: 2, micro: 22 }, package: "Debian" }, capabilities: ["oob"] } };

export interface Received {
  readonly execute?: string;
  readonly "exec-oob"?: string;
  readonly arguments?: unknown;
  readonly id: number;
}

export class ScriptedPeer {
  /** The end to give to the client. */
  readonly stream: Duplex;
  readonly #own: Duplex;
  readonly #splitter = new LineSplitter(1024 * 1024);
  readonly #received: Received[] = [];
  #wake: () => void = () => {};

  constructor() {
    [this.stream, this.#own] = duplexPair();
    this.#own.on("error", () => {});
    this.#own.on("data", (chunk: Buffer) => {
      for (const line of this.#splitter.push(chunk)) this.#received.push(JSON.parse(line.toString()) as Received);
      this.#wake();
    });
  }

  /** Sends messages, each a line, in one write. */
  send(...messages: readonly object[]): void {
    this.sendText(messages.map((message) => `${JSON.stringify(message)}\r\n`).join(""));
  }

  sendText(text: string | Buffer): void {
    this.#own.write(text);
  }

  event(name: string, data?: object): object {
    return { event: name, ...(data && { data }), timestamp: { seconds: 1, microseconds: 2 } };
  }

  /** The next command that the client has sent. */
  async receive(): Promise<Received> {
    for (;;) {
      const next = this.#received.shift();
      if (next !== undefined) return next;
      await new Promise<void>((resolve) => {
        this.#wake = resolve;
      });
    }
  }

  /** Greets, and takes part in the negotiation. `behind` comes in the same chunk as its answer. */
  async negotiate(...behind: readonly object[]): Promise<Received> {
    this.send(GREETING);
    const negotiation = await this.receive();
    this.send({ return: {}, id: negotiation.id }, ...behind);
    return negotiation;
  }

  /** Ends its side of the connection, as QEMU does when it ends. */
  end(): void {
    this.#own.end();
  }

  /** Breaks the connection. */
  breakOff(error: Error): void {
    this.stream.destroy(error);
  }
}
