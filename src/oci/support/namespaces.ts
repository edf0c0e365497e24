/**
 * Namespaces: the guest makes them all but the network's, whose links the host mirrors into the guest. What cannot be had is the host's
 * own, which is what a missing entry asks for.
 */

import type { NamespaceType, Spec } from "../types.ts";
import type { Circumstances, Finding } from "./finding.ts";

/** Of which types a container may have another one's in the same sandbox. The network's is every container's there. */
export const sharedTypes: readonly NamespaceType[] = ["ipc", "network", "pid", "uts"];

/** What a container would share with the host without a namespace of its own. user, cgroup, time: the guest's take their place. */
const shared: Partial<Record<NamespaceType, string>> = {
  network: "network",
  pid: "processes",
  ipc: "shared memory and message queues",
  uts: "host name",
  mount: "mounts",
};

export function judgeNamespaces(spec: Spec, { guestNamespace, isHostNetwork }: Circumstances): Finding[] {
  const namespaces = spec.linux?.namespaces ?? [];
  const absent = Object.entries(shared)
    .filter(([type]) => !namespaces.some((namespace) => namespace.type === type))
    .map(([type, what]): Finding => {
      const reason = `a VM cannot share the host's ${what}: add a namespace of type "${type}"`;
      return { verdict: "refused", path: "linux.namespaces", reason };
    });
  const joined = namespaces.flatMap((namespace, index): Finding[] => {
    const { type, path = "" } = namespace;
    if (path === "" || guestNamespace?.(namespace) !== undefined) return [];
    if (type === "network" && isHostNetwork?.(path) !== true) return [];
    // Docker names the host's network by a path.
    const reason =
      type === "network"
        ? `${path} is the host's own network, which a VM cannot share`
        : `${path}: only containers of the same virtual machine can share it: name the network namespace of the one that has it as well`;
    return [{ verdict: "refused", path: `linux.namespaces[${index}].path`, reason }];
  });
  return [...absent, ...joined];
}
