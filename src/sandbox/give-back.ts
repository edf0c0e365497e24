/** How what the helper took for a sandbox is given back, by the helper. */
import type { GiveBackOptions } from "../host/ledger.ts";

/** Loads what it needs when it is needed: most ledgers name cgroups alone. */
export function throughHelper(helper: string): GiveBackOptions {
  return {
    detachTap: async (netns, link, tap) => {
      const { detachTap } = await import("../network/namespace.ts");
      await detachTap(helper, netns, link, tap);
    },
    unmount: async (path) => {
      const { unmountAll } = await import("../host/mounts.ts");
      await unmountAll(helper, path);
    },
  };
}
