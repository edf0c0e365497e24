/** What a network namespace of the host holds, as `husk-helper network serve` tells it, and the taps that join its links to a VM. */
import { execFile } from "node:child_process";
import { promisify } from "node:util";
import { HuskError } from "../errors.ts";

export interface Link {
  readonly name: string;
  readonly kind: string;
  readonly mac: string;
  readonly mtu: number;
  readonly index: number;
  readonly addresses: readonly string[];
  readonly up: boolean;
  /** Packets find their way on it without hardware addresses. */
  readonly no_arp: boolean;
}

export interface NamespaceRoute {
  readonly destination: string;
  readonly gateway: string;
  readonly interface: string;
  readonly source: string;
  readonly scope: number;
  readonly metric: number;
  readonly onlink: boolean;
}

export interface NamespaceNeighbour {
  readonly address: string;
  readonly mac: string;
  readonly interface: string;
}

export interface NamespaceContents {
  readonly links: readonly Link[];
  readonly routes: readonly NamespaceRoute[];
  readonly neighbours: readonly NamespaceNeighbour[];
}

const run = promisify(execFile);

/** A tap, and the link that it is joined to, or is to be. */
export interface JoinedTap {
  /** The link's namespace. */
  readonly netns: string;
  readonly link: string;
  readonly tap: string;
}

/** Moves the tap from the namespace `from` to that of the link, where it is not the same, and joins them in both directions. Throws `host`, with nothing left there. */
export async function attachTap(helper: string, from: string, { netns, link, tap }: JoinedTap): Promise<void> {
  await networkCommand(helper, ["attach", "--from", from, "--netns", netns, "--link", link, "--tap", tap]);
}

/** Undoes `attachTap`. What is gone already is no error. `owner`: of the tap, without which it is taken for ours; `from`: where the tap may be instead. */
export async function detachTap(
  helper: string,
  { netns, link, tap, owner, from }: JoinedTap & { readonly owner?: number; readonly from?: string },
): Promise<void> {
  const [whose, where] = [owner === undefined ? [] : ["--owner", String(owner)], from === undefined ? [] : ["--from", from]];
  await networkCommand(helper, ["detach", "--netns", netns, "--link", link, "--tap", tap, ...whose, ...where]);
}

async function networkCommand(helper: string, args: readonly string[]): Promise<string> {
  try {
    return (await run(helper, ["network", ...args], { timeout: 10_000, maxBuffer: 4 * 1024 * 1024 })).stdout;
  } catch (cause) {
    const said = (cause as { stderr?: string }).stderr?.trim().replace(/^husk: /, "");
    throw new HuskError("host", said === undefined || said === "" ? `network ${args[0]} failed: ${String(cause)}` : said);
  }
}
