/**
 * Mirrors the links of the container's network namespace into the guest: for each a tap joined to it, a virtio-net device on that tap with
 * the link's own MAC address, and the same addresses, routes and neighbours inside. Fails closed: a link that cannot be mirrored fails the start.
 * What changes in the namespace later changes in the guest. What is on no link goes with it: the engine's name server at 127.0.0.11, and
 * connections to localhost.
 */
import type { AgentClient } from "../agent/agent-client.ts";
import { explain, HuskError } from "../errors.ts";
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
  /** That of QEMU's, which opens its taps there. */
  readonly vmNetns: string;
  /** Who QEMU runs as: the taps are its own. */
  readonly owner: number;
  readonly vhost: boolean;
  /** Where the socket for connections to the namespace's localhost may be; null: they stay there. */
  readonly forwardSocket: string | null;
  /** Makes a tap in QEMU's namespace, which is to be joined to a link. */
  readonly makeTap: (tap: string, link: string) => Promise<void>;
  /** Told what goes wrong after the start, and what the guest can do without. */
  readonly warn: (message: string) => void;
}

/** A device of the guest's and the link behind it. */
interface Mirrored {
  readonly link: Link;
  readonly tap: string;
}

/** A network device of a guest: on which port, and what the guest knows it by. */
export interface GuestLink {
  readonly index: number;
  readonly name: string;
  readonly mac: string;
}

export class NetworkMirror {
  readonly #options: MirrorOptions;
  readonly #vm: QemuVm;
  #agent: AgentClient | undefined;
  /** The MAC addresses that devices have for the guest yet, where their links have others: by those of the links. */
  readonly #oldMacs = new Map<string, string>();
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
    const mirror = new NetworkMirror(options, vm);
    await mirror.follow(agent);
    return mirror;
  }

  /**
   * Gives the machine of a checkpoint, which waits, the devices that it had, with the namespace's links behind them; `follow` is to be called once it runs.
   * Throws as `start`, and `invalid-argument` where there is no link for a device.
   */
  static async restore(options: MirrorOptions, vm: QemuVm, devices: readonly GuestLink[]): Promise<NetworkMirror> {
    const mirror = new NetworkMirror(options, vm);
    await mirror.#orGiveBack(async () => {
      if (devices.length === 0) return;
      const { links } = (await mirror.#service.scan()).contents;
      for (const { device, link } of matchLinks(devices, links)) {
        await mirror.#plug(device.index, link, device.mac);
        if (device.mac !== link.mac) mirror.#oldMacs.set(link.mac, device.mac);
      }
    });
    return mirror;
  }

  /** Mirrors what the namespace holds now, and follows it from now on. Throws as `start`. */
  async follow(agent: AgentClient): Promise<void> {
    this.#agent = agent;
    await this.#orGiveBack(async () => {
      const scanned = this.#service.scan();
      const forwarding = this.#forwardPorts(agent);
      await this.#apply(agent, await scanned);
      await forwarding;
    });
    void this.#service.ended.then((error) => {
      if (error !== undefined) this.#options.warn(`the guest's network is not kept up to date any more: ${explain(error)}`);
    });
    this.#started();
  }

  private constructor(options: MirrorOptions, vm: QemuVm) {
    this.#options = options;
    this.#vm = vm;
    this.#service = new NamespaceService(options.helper, options.netns, () => this.#changed());
  }

  /** The guest's devices. Throws `wrong-state` where it has one that it was told to let go of, and has not. */
  get devices(): GuestLink[] {
    return [...this.#mirrored].map(([index, one]) => {
      if (one === "stuck") throw new HuskError("wrong-state", `the guest has not let go of its network device ${index} yet`);
      return { index, name: one.link.name, mac: one.link.mac };
    });
  }

  async #orGiveBack(work: () => Promise<void>): Promise<void> {
    try {
      await work();
    } catch (error) {
      await this.close();
      for (const one of this.#mirrored.values()) if (one !== "stuck") await this.#detach(one);
      throw error;
    }
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
    const agent = this.#agent;
    if (agent === undefined) return;
    try {
      await this.#apply(agent, await this.#service.scan());
    } catch (error) {
      if (!this.#closed) this.#options.warn(`the guest's network could not follow a change: ${explain(error)}`);
    }
  }

  /** Makes the guest's network what was found. */
  async #apply(agent: AgentClient, { contents, resolver }: NamespaceScan): Promise<void> {
    for (const [index, one] of this.#mirrored) {
      if (one !== "stuck" && !contents.links.some((link) => isSame(link, one.link))) await this.#remove(index, one);
    }
    for (const link of contents.links) {
      const known = [...this.#mirrored.values()].some((one) => one !== "stuck" && isSame(link, one.link));
      if (!known) await this.#add(link);
    }
    // A guest begins with its loopback and nothing else: where the namespace has no more, there is nothing to say.
    if (contents.links.length > 0 || this.#configured) await agent.call("configureNetwork", guestNetwork(contents, this.#oldMacs));
    this.#oldMacs.clear();
    this.#configured = contents.links.length > 0;
    if (resolver && this.#names === undefined) {
      const { relayNames } = await import("./name-relay.ts");
      this.#names = await relayNames(agent, this.#service, (error) => {
        this.#names = undefined;
        if (!this.#closed) this.#options.warn(`the guest has lost its name server: ${explain(error)}`);
      });
    } else if (!resolver) {
      this.#names?.close();
      this.#names = undefined;
    }
  }

  async #add(link: Link): Promise<void> {
    await this.#plug(firstFree(this.#mirrored), link, link.mac);
  }

  async #plug(index: number, link: Link, mac: string): Promise<void> {
    const { helper, netns, vmNetns, vhost, makeTap } = this.#options;
    const tap = `husk${index}`;
    const one = { link, tap };
    this.#mirrored.set(index, one);
    try {
      await makeTap(tap, link.name);
      // A tap that QEMU has opened is its own wherever it is moved: QEMU need not be in a namespace that others have made.
      await this.#vm.plugNetwork({ index, tap, mac, vhost }, () => attachTap(helper, vmNetns, { netns, link: link.name, tap }));
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
    const { helper, netns, vmNetns, owner } = this.#options;
    return detachTap(helper, { netns, link: link.name, tap, owner, from: vmNetns });
  }

  /** Without it, everything else works: it is worth a warning. */
  async #forwardPorts(agent: AgentClient): Promise<void> {
    const { forwardSocket, warn } = this.#options;
    if (forwardSocket === null) return;
    try {
      const { forwardPorts } = await import("./port-forward.ts");
      this.#forward = await forwardPorts(agent, forwardSocket);
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

/** Which link takes the place of which device's: the one with its MAC address, or its name, or else one that is left. Throws `invalid-argument`. */
export function matchLinks(devices: readonly GuestLink[], links: readonly Link[]): { readonly device: GuestLink; readonly link: Link }[] {
  const left = new Set(links);
  const found = new Map<GuestLink, Link>();
  const isFor: ((device: GuestLink, link: Link) => boolean)[] = [
    (device, link) => device.mac === link.mac,
    (device, link) => device.name === link.name,
    () => true,
  ];
  for (const is of isFor) {
    for (const device of devices) {
      const link = found.has(device) ? undefined : [...left].find((one) => is(device, one));
      if (link === undefined) continue;
      found.set(device, link);
      left.delete(link);
    }
  }
  return devices.map((device) => {
    const link = found.get(device);
    if (link !== undefined) return { device, link };
    throw new HuskError(
      "invalid-argument",
      `the checkpointed container had ${devices.length} network links (${devices.map(({ name }) => name).join(", ")}), its network namespace has ${links.length} now`,
    );
  });
}

/** What the agent is told: the same links by MAC address, and everything that names one of them. `oldMacs`: those that devices have yet. */
function guestNetwork({ links, routes, neighbours }: NamespaceContents, oldMacs: ReadonlyMap<string, string>) {
  const known = new Set(links.map((link) => link.name));
  return {
    interfaces: links.map(({ mac, name, mtu, addresses, no_arp: noArp }: Link) => ({
      mac: oldMacs.get(mac) ?? mac,
      newMac: oldMacs.has(mac) ? mac : "",
      name,
      mtu,
      addresses: [...addresses],
      noArp,
    })),
    routes: routes.filter((route) => known.has(route.interface)),
    neighbours: neighbours.filter((neighbour) => known.has(neighbour.interface)),
  };
}
