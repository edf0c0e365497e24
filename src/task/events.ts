/**
 * A shim's events on their way to containerd: in order, one at a time, and kept while containerd is away.
 * https://github.com/containerd/containerd/blob/main/core/runtime/v2/README.md "Events"
 */
import { explain } from "../errors.ts";
import { EventsDefinition } from "../gen/containerd/events/v1/forward.ts";
import type { Any } from "../gen/google/protobuf/any.ts";
import { TtrpcClient } from "../ttrpc/client.ts";
import type { Logger } from "./logger.ts";
import { timestamp } from "./timestamp.ts";

/** As many as containerd's own shim keeps. */
const maxQueued = 2048;

/** How long one delivery may take, and how long to leave a containerd alone that does not answer; in milliseconds. */
const sendMs = 5_000;
const retryMs = 500;

interface QueuedEvent {
  readonly topic: string;
  readonly event: Any;
  readonly at: Date;
}

export class EventPublisher {
  readonly #address: string;
  readonly #namespace: string;
  readonly #log: Logger;
  readonly #queue: QueuedEvent[] = [];
  #client: TtrpcClient | undefined;
  #sending: Promise<void> | undefined;
  #closing = false;

  /** `address`: of containerd's ttrpc socket; "" where events go nowhere. */
  constructor(address: string, namespace: string, log: Logger) {
    this.#address = address;
    this.#namespace = namespace;
    this.#log = log;
  }

  /** Queues an event; it is sent after all that were queued before. */
  publish(topic: string, event: Any): void {
    if (this.#address === "") return;
    if (this.#queue.length >= maxQueued) {
      const lost = this.#queue.shift();
      this.#log.warn(`containerd is away, and more than ${maxQueued} events wait for it: an event ${lost?.topic} is lost`);
    }
    this.#queue.push({ topic, event, at: new Date() });
    this.#sending ??= this.#send().finally(() => {
      this.#sending = undefined;
    });
  }

  /** Sends what is queued, as long as containerd takes it, and hangs up. */
  async close(): Promise<void> {
    this.#closing = true;
    await this.#sending;
    await this.#client?.close();
  }

  async #send(): Promise<void> {
    for (let next = this.#queue[0]; next !== undefined; next = this.#queue[0]) {
      try {
        await this.#forward(next);
        this.#queue.shift();
      } catch (error) {
        this.#client = undefined;
        if (this.#closing) {
          this.#log.warn(`${this.#queue.length} event(s) could not be told to containerd: ${explain(error)}`);
          return;
        }
        // Nothing tells when containerd is back.
        await new Promise((resolve) => setTimeout(resolve, retryMs).unref());
      }
    }
  }

  async #forward({ topic, event, at }: QueuedEvent): Promise<void> {
    if (this.#client === undefined) {
      const client = await TtrpcClient.connect(this.#address, { timeoutMs: sendMs });
      this.#client = client;
      void client.closed.then(() => {
        if (this.#client === client) this.#client = undefined;
      });
    }
    const envelope = { timestamp: timestamp(at), namespace: this.#namespace, topic, event };
    const metadata = { "containerd-namespace-ttrpc": this.#namespace };
    await this.#client.call(EventsDefinition, "forward", { envelope }, { timeoutMs: sendMs, metadata });
  }
}
