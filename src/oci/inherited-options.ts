/**
 * What a bind mount has of the host's mount that its source is in. On the host the kernel hands that on; the guest has one mount for all that is shown to it,
 * and is told. As with runc: a bind mount without flags of its own has all of the host's; flags replace them, but not in a user namespace, where the kernel
 * holds to them whatever is asked.
 */
import type { Mount } from "./types.ts";

/** How access times are kept: one of several values, which an option that says so replaces. */
const accessTimes = ["noatime", "nodiratime", "relatime", "strictatime"];

/** Those that set or clear a flag of the mount itself. */
const flags = accessTimes.concat(
  ["ro", "rw", "nosuid", "suid", "nodev", "dev", "noexec", "exec", "nosymfollow", "symfollow"],
  ["atime", "diratime", "norelatime", "nostrictatime"],
);

/**
 * The options to be added behind the mount's own. `host`: see `mountOptions` of `propagation.ts`. `below`: whether the host may have mounts below the source,
 * of which each can be written to or not: the host sees to that.
 */
export function inheritedOptions(mount: Mount, host: readonly string[], userNamespace: boolean, below: boolean): string[] {
  const given = mount.options?.filter((option) => flags.includes(option)) ?? [];
  const keepsTimes = !given.some((option) => accessTimes.includes(option));
  return host.filter((option) => {
    // Read-only on the host is read-only: what the guest's mount says does not change that.
    if (option === "ro") return !below;
    if (userNamespace && option !== "nosymfollow") return true;
    return given.length === 0 || (keepsTimes && accessTimes.includes(option));
  });
}
