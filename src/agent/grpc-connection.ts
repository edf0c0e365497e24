/** One HTTP/2 connection to the agent, over a unix socket behind which the channel is. It is dialled once: one that broke stays broken, since the guest behind it is gone. */
import { type ClientHttp2Session, connect as connectHttp2 } from "node:http2";
import { connect, type Socket } from "node:net";
import { HuskError } from "../errors.ts";
import { dial } from "./dial.ts";

/** How much the guest may send on one stream before it is read. */
const streamWindowBytes = 1024 * 1024;

/** Many streams' worth, so that stalled ones leave room for every other call. */
const connectionWindowBytes = 16 * streamWindowBytes;

/** The largest HTTP/2 frame that the guest may send. At the protocol's default, 16 KiB, bulk output drowns in frames. */
const maxFrameBytes = 256 * 1024;

/** Of memory for what waits to be sent, in MB: each writer is told to wait by its own stream, and calls beside it must never be refused. */
const maxSessionMemory = 2 ** 20;

export class GrpcConnection {
  readonly #path: string;
  readonly #end = Promise.withResolvers<never>();
  #socket: Socket | undefined;
  #session: Promise<ClientHttp2Session> | undefined;
  #closed = false;

  constructor(socketPath: string) {
    this.#path = socketPath;
    this.#end.promise.catch(() => {}); // told to whoever waits for the session
  }

  get closed(): boolean {
    return this.#closed;
  }

  /** The session, once the agent has accepted the dial; the first who asks has it dialled. Rejects with `guest` where it cannot be had, or the connection is closed first. */
  session(): Promise<ClientHttp2Session> {
    this.#session ??= Promise.race([this.#open(), this.#end.promise]);
    return this.#session;
  }

  /** Ends the connection, and with it every call. */
  close(): void {
    if (this.#closed) return;
    this.#closed = true;
    this.#end.reject(new HuskError("guest", "the channel to the guest's agent was closed"));
    this.#session?.then(
      (session) => session.destroy(),
      () => {}, // there is none
    );
    this.#socket?.destroy();
  }

  async #open(): Promise<ClientHttp2Session> {
    const socket = connect(this.#path);
    this.#socket = socket;
    await new Promise<void>((resolve, reject) => {
      const failed = (cause: Error): void => reject(new HuskError("guest", "the channel to the guest's agent cannot be opened", { cause }));
      socket.once("error", failed);
      socket.once("connect", () => {
        socket.off("error", failed);
        resolve();
      });
    });
    socket.on("error", () => {}); // `close` follows
    await dial(socket);
    const session = connectHttp2("http://husk", {
      createConnection: () => socket,
      settings: { enablePush: false, initialWindowSize: streamWindowBytes, maxFrameSize: maxFrameBytes },
      maxSessionMemory,
    });
    session.on("error", () => {}); // every call is told
    session.once("connect", () => session.setLocalWindowSize(connectionWindowBytes));
    return session;
  }
}
