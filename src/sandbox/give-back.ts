/** How what the helper took for a sandbox is given back, by the helper. */
import { rmSync } from "node:fs";
import { type GiveBackOptions, giveBack, readLedger } from "../host/ledger.ts";

/** Loads what it needs when it is needed: most ledgers name cgroups alone. */
export function throughHelper(helper: string): GiveBackOptions {
  return {
    detachTap: async (tap) => {
      const { detachTap } = await import("../network/namespace.ts");
      await detachTap(helper, tap);
    },
    unmount: async (path) => {
      const { unmountAll } = await import("../host/mounts.ts");
      await unmountAll(helper, path);
    },
  };
}

/** Gives back all that the ledger names; `helper` takes taps and mounts away. Throws `host` at the first thing that could not be given back, after the others. */
export async function giveBackLedger(ledger: string, helper: string): Promise<void> {
  const [failure] = await giveBack(readLedger(ledger), throughHelper(helper));
  if (failure !== undefined) throw failure;
}

/** Gives back all that the ledger names, and removes the ledger. Throws as `giveBackLedger`; the ledger stays then. */
export async function settleLedger(ledger: string, helper: string): Promise<void> {
  await giveBackLedger(ledger, helper);
  rmSync(ledger, { force: true });
}
