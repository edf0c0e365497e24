/**
 * Mirrors the links of the container's network namespace into the guest: for each a tap joined to it, a virtio-net device on that tap with
 * the link's own MAC address, and the same addresses, routes and neighbours inside. Fails closed: a link that cannot be mirrored fails the start.
 * What changes in the namespace later changes in the guest. What is on no link goes with it: the engine's name server at 127.0.0.11, and
 * connections to localhost.
 */
import type { AgentClient } from "../agent/agent-client.ts";
import { explain } from "../errors.ts";
import type { QemuVm } from "../vmm/qemu/qemu-vm.ts";
import type { NameRelay } from "./name-relay.ts";
import { attachTap, detachTap, type Link, type NamespaceContents } from "./namespace.ts";
import { type NamespaceScan, NamespaceService } from "./namespace-service.ts";
import type { PortForward } from "./port-forward.ts";

/** How long a guest may take to let go of a device: some wait 5 s for somebody to press a button (pciehp). */
const unplugMs = 15_000;

export interface MirrorOptions {
  readonly helper: string;
  /** A path of the namespace, as the host sees it. */
  readonly netns: string;
  /** Who QEMU runs as: the taps are its own. */
  readonly owner: number;
  readonly vhost: boolean;
  /** Where the socket for connections to the namespace's localhost may be; null: they stay there. */
  readonly forwardSocket: string | null;
  /** Told before a tap is made. */
  readonly beforeTap: (link: string, tap: string) => void;
  /** Told what goes wrong after the start, and what the guest can do without. */
  readonly warn: (message: string) => void;
}

/** A device of the guest's and the link behind it. */
interface Mirrored {
  readonly link: Link;
  readonly tap: string;
}

export class NetworkMirror {
  readonly #options: MirrorOptions;
  readonly #vm: QemuVm;
  readonly #agent: AgentClient;
  readonly #service: NamespaceService;
  /** By the number of the device's port. A port whose device the guest has not let go of is not used again. */
  readonly #mirrored = new Map<number, Mirrored | "stuck">();
  #names: NameRelay | undefined;
  #forward: PortForward | undefined;
  /** Changes are followed one after the other. */
  #following: Promise<void> | undefined;
  #isStarted = false;
  /** Whether the guest has been told of any link. */
  #configured = false;
  /** Whether something has changed that was not followed yet. */
  #isStale = false;
  #closed = false;

  /**
   * Mirrors what the namespace holds now; where it holds nothing, the guest still has its loopback. Throws `host`, `vmm` or `guest`, with every tap it made
   * taken away again.
   */
  static async start(options: MirrorOptions, vm: QemuVm, agent: AgentClient): Promise<NetworkMirror> {
    const mirror = new NetworkMirror(options, vm, agent);
    try {
      const scanned = mirror.#service.scan();
      const forwarding = mirror.#forwardPorts();
      await mirror.#apply(await scanned);
      await forwarding;
    } catch (error) {
      await mirror.close();
      for (const one of mirror.#mirrored.values()) if (one !== "stuck") await mirror.#detach(one);
      throw error;
    }
    void mirror.#service.ended.then((error) => {
      if (error !== undefined) options.warn(`the guest's network is not kept up to date any more: ${explain(error)}`);
    });
    mirror.#started();
    return mirror;
  }

  private constructor(options: MirrorOptions, vm: QemuVm, agent: AgentClient) {
    this.#options = options;
    this.#vm = vm;
    this.#agent = agent;
    this.#service = new NamespaceService(options.helper, options.netns, () => this.#changed());
  }

  /** Ends the following, the name server and the forwarding. The taps stay, and are in the ledger. */
  async close(): Promise<void> {
    this.#closed = true;
    this.#names?.close();
    this.#forward?.close();
    await this.#service.close();
    await this.#following;
  }

  /** From here on changes are followed; those of the meantime as well. */
  #started(): void {
    this.#isStarted = true;
    if (this.#isStale) this.#changed();
  }

  #changed(): void {
    this.#isStale = true;
    if (!this.#isStarted || this.#closed || this.#following !== undefined) return;
    this.#following = this.#follow().finally(() => {
      this.#following = undefined;
      if (this.#isStale) this.#changed();
    });
  }

  async #follow(): Promise<void> {
    this.#isStale = false;
    try {
      await this.#apply(await this.#service.scan());
    } catch (error) {
      if (!this.#closed) this.#options.warn(`the guest's network could not follow a change: ${explain(error)}`);
    }
  }

  /** Makes the guest's network what was found. */
  async #apply({ contents, resolver }: NamespaceScan): Promise<void> {
    for (const [index, one] of this.#mirrored) {
      if (one !== "stuck" && !contents.links.some((link) => isSame(link, one.link))) await this.#remove(index, one);
    }
    for (const link of contents.links) {
      const known = [...this.#mirrored.values()].some((one) => one !== "stuck" && isSame(link, one.link));
      if (!known) await this.#add(link);
    }
    // A guest begins with its loopback and nothing else: where the namespace has no more, there is nothing to say.
    if (contents.links.length > 0 || this.#configured) await this.#agent.call("configureNetwork", guestNetwork(contents));
    this.#configured = contents.links.length > 0;
    if (resolver && this.#names === undefined) {
      const { relayNames } = await import("./name-relay.ts");
      this.#names = await relayNames(this.#agent, this.#service, (error) => {
        this.#names = undefined;
        if (!this.#closed) this.#options.warn(`the guest has lost its name server: ${explain(error)}`);
      });
    } else if (!resolver) {
      this.#names?.close();
      this.#names = undefined;
    }
  }

  async #add(link: Link): Promise<void> {
    const { helper, netns, owner, vhost, beforeTap } = this.#options;
    const index = firstFree(this.#mirrored);
    const tap = `husk${index}`;
    beforeTap(link.name, tap);
    await attachTap(helper, netns, link.name, tap, owner);
    const one = { link, tap };
    this.#mirrored.set(index, one);
    try {
      await this.#vm.plugNetwork({ index, tap, mac: link.mac, vhost });
    } catch (error) {
      this.#mirrored.delete(index);
      await this.#detach(one);
      throw error;
    }
  }

  /** The tap goes even where the guest does not let go of the device: nothing more is carried. */
  async #remove(index: number, one: Mirrored): Promise<void> {
    this.#mirrored.set(index, "stuck");
    try {
      await this.#vm.unplugNetwork(index, unplugMs);
      this.#mirrored.delete(index);
    } finally {
      await this.#detach(one);
    }
  }

  #detach({ link, tap }: Mirrored): Promise<void> {
    const { helper, netns } = this.#options;
    return detachTap(helper, netns, link.name, tap);
  }

  /** Without it, everything else works: it is worth a warning. */
  async #forwardPorts(): Promise<void> {
    const { forwardSocket, warn } = this.#options;
    if (forwardSocket === null) return;
    try {
      const { forwardPorts } = await import("./port-forward.ts");
      this.#forward = await forwardPorts(this.#agent, forwardSocket);
      await this.#service.forward(forwardSocket);
    } catch (error) {
      if (!this.#closed) warn(`connections to localhost in the network namespace do not reach the guest: ${explain(error)}`);
    }
  }
}

/** Whether it is the link that it was: the guest's device has its MAC address for good. */
function isSame(a: Link, b: Link): boolean {
  return a.index === b.index && a.mac === b.mac && a.name === b.name;
}

function firstFree(taken: ReadonlyMap<number, unknown>): number {
  let index = 0;
  while (taken.has(index)) index += 1;
  return index;
}

/** What the agent is told: the same links by MAC address, and everything that names one of them. */
function guestNetwork({ links, routes, neighbours }: NamespaceContents) {
  const known = new Set(links.map((link) => link.name));
  return {
    interfaces: links.map(({ mac, name, mtu, addresses, no_arp: noArp }: Link) => ({ mac, name, mtu, addresses: [...addresses], noArp })),
    routes: routes.filter((route) => known.has(route.interface)),
    neighbours: neighbours.filter((neighbour) => known.has(neighbour.interface)),
  };
}
