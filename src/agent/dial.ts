/**
 * The dial: how a byte stream to the guest becomes a fresh one. Bytes written between two connections of a virtio-serial port reach the
 * next one, so a dial begins with a nonce that the agent echoes, and both sides discard what comes before it.
 *
 * grpc-js dials unix sockets by itself; its secure connector (the step in which TLS would be negotiated) is where ours happens.
 */
import { randomBytes } from "node:crypto";
import type { Socket } from "node:net";
import { CallCredentials, ChannelCredentials } from "@grpc/grpc-js";
import { HuskError } from "../errors.ts";

/** The version of proto/agent/v1 that this client speaks; the agent must echo it. */
export const protocolVersion = 1;

/** An agent that talks more than this before it accepts is none. */
const maxGreetingBytes = 64 * 1024;

/** What a dial is known by: 32 hexadecimal digits. */
export function newNonce(): string {
  return randomBytes(16).toString("hex");
}

/** Writes the dial line on `socket` and waits for the answer. What follows the answer stays in the socket. Throws `guest`. */
export function dial(socket: Socket, nonce: string): Promise<void> {
  const accept = Buffer.from(`husk-accept ${protocolVersion} ${nonce}\n`);
  let received = Buffer.alloc(0);
  return new Promise((resolve, reject) => {
    const settle = (error?: HuskError): void => {
      socket.off("readable", onReadable).off("error", onError).off("close", onClose);
      if (error === undefined) resolve();
      else reject(error);
    };
    const onReadable = (): void => {
      for (let chunk: Buffer | null = socket.read(); chunk !== null; chunk = socket.read()) {
        received = Buffer.concat([received, chunk]);
      }
      const at = received.indexOf(accept);
      if (at !== -1) {
        const rest = received.subarray(at + accept.length);
        if (rest.length > 0) socket.unshift(rest);
        settle();
        return;
      }
      const other = /husk-accept (\d+) [0-9a-f]{32}\n/.exec(received.toString("latin1"));
      if (other !== null && other[1] !== String(protocolVersion)) {
        settle(new HuskError("guest", `the guest's agent speaks protocol ${other[1]}, this supervisor ${protocolVersion}`));
      } else if (received.length > maxGreetingBytes) {
        settle(new HuskError("guest", "what answers in the guest is not husk's agent"));
      }
    };
    const onError = (cause: Error): void => settle(new HuskError("guest", "the channel to the guest's agent broke", { cause }));
    const onClose = (): void => settle(new HuskError("guest", "the channel to the guest's agent closed before it answered"));
    socket.on("readable", onReadable).on("error", onError).on("close", onClose);
    socket.write(`husk-dial ${protocolVersion} ${nonce}\n`);
  });
}

type SecureConnector = ReturnType<ChannelCredentials["_createSecureConnector"]>;

/** Channel credentials whose connector dials the agent, once: a channel that broke stays broken, since the guest behind it is
 * gone. `onDialled` is told the socket. */
export class DialCredentials extends ChannelCredentials {
  readonly #nonce: string;
  readonly #onDialled: (socket: Socket) => void;
  #dialled = false;

  constructor(nonce: string, onDialled: (socket: Socket) => void) {
    super();
    this.#nonce = nonce;
    this.#onDialled = onDialled;
  }

  override _isSecure(): boolean {
    return false;
  }

  override _equals(other: ChannelCredentials): boolean {
    return this === other;
  }

  override _createSecureConnector(): SecureConnector {
    return {
      connect: async (socket) => {
        if (this.#dialled) throw new HuskError("guest", "the channel to the guest's agent is gone");
        this.#dialled = true;
        await dial(socket, this.#nonce);
        this.#onDialled(socket);
        return { socket, secure: false };
      },
      waitForReady: () => Promise.resolve(),
      getCallCredentials: () => CallCredentials.createEmpty(),
      destroy: () => {},
    };
  }
}
