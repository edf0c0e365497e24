/**
 * The client of `husk-helper network serve`: a process of ours in a network namespace of the host, as long as a sandbox has that namespace. It says what is
 * there and that it changed, asks the engine's name server, and takes connections to the loopback addresses. It ends with this one, and leaves nothing.
 */
import { type ChildProcess, spawn } from "node:child_process";
import type { Duplex, Readable } from "node:stream";
import { HuskError } from "../errors.ts";
import { type Deferred, deferred } from "../host/deferred.ts";
import { readJsonLines, writeJsonLine } from "../host/lines.ts";
import { Tail } from "../host/tail.ts";
import type { NamespaceContents } from "./namespace.ts";

export interface NamespaceScan {
  readonly contents: NamespaceContents;
  /** Whether the engine has a name server at 127.0.0.11 there. */
  readonly resolver: boolean;
}

type Answer = Readonly<Record<string, unknown>>;

export class NamespaceService {
  /** Resolves when it has ended, with the reason where nobody asked it to. */
  readonly ended: Promise<HuskError | undefined>;
  readonly #child: ChildProcess;
  readonly #control: Duplex;
  readonly #requests = new Map<number, Deferred<Answer>>();
  readonly #onChange: () => void;
  #nextRequest = 1;
  #closing = false;
  #over: HuskError | undefined;

  /** `onChange` is told of the first change after each scan. */
  constructor(helper: string, netns: string, onChange: () => void) {
    this.#onChange = onChange;
    this.#child = spawn(helper, ["network", "serve", "--netns", netns], { stdio: ["ignore", "ignore", "pipe", "pipe"] });
    this.#control = this.#child.stdio[3] as Duplex;
    const said = new Tail();
    (this.#child.stdio[2] as Readable).on("data", (chunk: Buffer) => said.add(chunk));
    this.ended = new Promise((resolve) => {
      const end = (cause?: Error): void => {
        const words = said
          .lines(1)
          .join("")
          .replace(/^husk: /, "");
        const error = new HuskError("host", `the helper in the network namespace ended${words === "" ? "" : `: ${words}`}`, { cause });
        this.#over = error;
        for (const request of this.#requests.values()) request.reject(error);
        this.#requests.clear();
        resolve(this.#closing ? undefined : error);
      };
      this.#child.once("error", end);
      this.#child.once("close", () => end());
    });
    readJsonLines(
      this.#control,
      "the helper in the network namespace",
      (message) => this.#onMessage(message),
      () => this.#control.destroy(), // its end follows
    );
  }

  /** What the namespace holds now. Throws `host`. */
  async scan(): Promise<NamespaceScan> {
    return (await this.#request({ op: "scan" })) as unknown as NamespaceScan;
  }

  /** Asks the engine's name server. Throws `host` where there is no answer. */
  async ask(query: Uint8Array, tcp: boolean): Promise<Buffer> {
    const { answer } = await this.#request({ op: "ask", query: Buffer.from(query).toString("hex"), tcp });
    return Buffer.from(String(answer), "hex");
  }

  /** Has connections to the namespace's loopback addresses dial `socket` from now on, as PROTOCOL.md says. Throws `host`. */
  async forward(socket: string): Promise<void> {
    await this.#request({ op: "forward", socket });
  }

  /** Ends it. */
  async close(): Promise<void> {
    this.#closing = true;
    this.#control.destroy();
    await this.ended;
  }

  #request(request: object): Promise<Answer> {
    if (this.#over !== undefined) return Promise.reject(this.#over);
    const id = this.#nextRequest++;
    const answer = deferred<Answer>();
    this.#requests.set(id, answer);
    writeJsonLine(this.#control, { id, ...request });
    return answer.promise;
  }

  #onMessage(message: Answer): void {
    const { event, id, error } = message;
    if (event === "changed") this.#onChange();
    if (typeof id !== "number") return;
    const request = this.#requests.get(id);
    this.#requests.delete(id);
    if (error === undefined) request?.resolve(message);
    else request?.reject(new HuskError("host", String(error)));
  }
}
