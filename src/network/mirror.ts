/**
 * Mirrors the links of the container's network namespace into the guest: for each a tap joined to it, a virtio-net device on that tap with
 * the link's own MAC address, and the same addresses, routes and neighbours inside. Fails closed: a link that cannot be mirrored fails the start.
 */
import type { AgentClient } from "../agent/agent-client.ts";
import type { QemuVm } from "../vmm/qemu/qemu-vm.ts";
import { attachTap, detachTap, type Link, type NamespaceContents, scanNamespace } from "./namespace.ts";

export interface MirrorOptions {
  readonly helper: string;
  /** A path of the namespace, as the host sees it. */
  readonly netns: string;
  /** Who QEMU runs as: the taps are its own. */
  readonly owner: number;
  readonly vhost: boolean;
  /** Told before a tap is made. */
  readonly beforeTap: (link: string, tap: string) => void;
}

/** Mirrors what the namespace holds now; where it holds nothing, the guest still has its loopback. Throws `host` or `vmm`, with every tap it made taken away again. */
export async function mirrorNetwork(options: MirrorOptions, vm: QemuVm, agent: AgentClient): Promise<void> {
  const contents = await scanNamespace(options.helper, options.netns);
  const made: [link: string, tap: string][] = [];
  try {
    for (const [index, link] of contents.links.entries()) {
      const tap = `husk${index}`;
      options.beforeTap(link.name, tap);
      await attachTap(options.helper, options.netns, link.name, tap, options.owner);
      made.push([link.name, tap]);
      await vm.plugNetwork({ index, tap, mac: link.mac, vhost: options.vhost });
    }
    // A guest begins with its loopback and nothing else: where the namespace has no more, there is nothing to say.
    if (contents.links.length > 0) await agent.call("configureNetwork", guestNetwork(contents));
  } catch (error) {
    for (const [link, tap] of made) await detachTap(options.helper, options.netns, link, tap);
    throw error;
  }
}

/** What the agent is told: the same links by MAC address, and everything that names one of them. */
function guestNetwork({ links, routes, neighbours }: NamespaceContents) {
  const known = new Set(links.map((link) => link.name));
  return {
    interfaces: links.map(({ mac, name, mtu, addresses }: Link) => ({ mac, name, mtu, addresses: [...addresses] })),
    routes: routes.filter((route) => known.has(route.interface)),
    neighbours: neighbours.filter((neighbour) => known.has(neighbour.interface)),
  };
}
