/**
 * The one HTTP/2 connection to an agent. grpc-js opens it, by way of our dial, and makes its calls on it; bulk calls (bulk-call.ts) open their streams
 * beside grpc-js's. It has no option for the size of frames, and hides its sessions; Node shows them.
 * https://nodejs.org/docs/latest-v24.x/api/diagnostics_channel.html#http2
 */
import { subscribe } from "node:diagnostics_channel";
import type { ClientHttp2Session, ClientHttp2Stream } from "node:http2";
import type { Socket } from "node:net";
import type { ChannelCredentials } from "@grpc/grpc-js";
import { HuskError } from "../errors.ts";
import { DialCredentials } from "./dial.ts";

/** How much the guest may send on one stream before it is read. */
export const streamWindowBytes = 2 * 1024 * 1024;

/** Many streams' worth, so that stalled ones leave room for every other call. */
const connectionWindowBytes = 8 * streamWindowBytes;

/** The largest HTTP/2 frame that the guest may send. At the protocol's default, 16 KiB, bulk output drowns in frames; this is as much as the agent hands on at once. */
const maxFrameBytes = 2 * 1024 * 1024 + 64;

/** On a dialled socket: whose it is. A session shows the properties of its socket. */
const owner = Symbol("husk.agent-connection");

type Owned = Partial<Record<typeof owner, AgentConnection>>;

export class AgentConnection {
  readonly credentials: ChannelCredentials;
  readonly #session = Promise.withResolvers<ClientHttp2Session>();
  #known = false;

  /** `nonce`: of its dial. */
  constructor(nonce: string) {
    this.#session.promise.catch(() => {}); // told to whoever waits for it
    this.credentials = new DialCredentials(nonce, (socket: Socket & Owned) => {
      socket[owner] = this;
    });
  }

  /** The session: from grpc-js's first call on. Rejects with `guest` where the connection is closed first. */
  get session(): Promise<ClientHttp2Session> {
    return this.#session.promise;
  }

  /** Nobody gets the session any more who has not got it. */
  close(): void {
    this.#session.reject(new HuskError("guest", "the channel to the guest's agent was closed"));
  }

  found(session: ClientHttp2Session): void {
    if (this.#known) return;
    this.#known = true;
    session.settings({ maxFrameSize: maxFrameBytes });
    session.setLocalWindowSize(connectionWindowBytes);
    this.#session.resolve(session);
  }
}

subscribe("http2.client.stream.created", (message) => {
  const { session } = (message as { readonly stream: ClientHttp2Stream }).stream;
  // A client's stream is of a client's session.
  if (session !== undefined && !session.destroyed) (session.socket as Owned)[owner]?.found(session as ClientHttp2Session);
});
