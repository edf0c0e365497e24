/** Which network namespaces are a shim's: a file for each, by which the front finds the shim for a container that joins one (PROTOCOL.md, "shim"). */
import { mkdirSync, readFileSync, renameSync, rmSync, statSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { HuskError } from "../errors.ts";
import { noteInLedger } from "../host/ledger.ts";
import { hasCode } from "../host/system-error.ts";

const folder = "/run/husk-shim/netns";

export interface NetworkClaim {
  /** Takes the file away, unless another shim has the namespace by now. */
  readonly release: () => void;
}

/**
 * Says that the namespace at `netns` is that of the shim at `address`. The namespace must live as long as the claim: its number is given anew after it.
 * Throws `host`.
 */
export function claimNetwork(netns: string, address: string, ledger: string): NetworkClaim {
  try {
    const { dev, ino } = statSync(netns);
    const path = join(folder, `${dev}-${ino}`);
    mkdirSync(folder, { recursive: true, mode: 0o700 });
    noteInLedger(ledger, { kind: "file", path });
    const fresh = `${path}.${process.pid}`;
    writeFileSync(fresh, address, { mode: 0o600 });
    renameSync(fresh, path);
    return { release: () => release(path, address) };
  } catch (cause) {
    throw new HuskError("host", `cannot claim the network namespace ${netns}`, { cause });
  }
}

function release(path: string, address: string): void {
  try {
    if (readFileSync(path, "utf8") === address) rmSync(path);
  } catch (cause) {
    if (!hasCode(cause, "ENOENT")) throw cause;
  }
}
