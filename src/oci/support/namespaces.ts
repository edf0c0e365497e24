/**
 * Namespaces: the guest makes them all but the network's, whose links the host mirrors into the guest. What cannot be had is the host's
 * own, which is what a missing entry asks for.
 */

import type { NamespaceType, Spec } from "../types.ts";
import type { Circumstances, Finding } from "./finding.ts";

/** Of which types a container may have another one's in the same sandbox. The network's is every container's there. */
export const sharedTypes: readonly NamespaceType[] = ["cgroup", "ipc", "network", "pid", "time", "user", "uts"];

/**
 * What a container would share with the host without a namespace of its own, and by which words engines and Kubernetes are asked for that. user, cgroup, time:
 * the guest's take their place.
 */
const shared: Partial<Record<NamespaceType, { readonly what: string; readonly words?: string }>> = {
  network: { what: "network", words: "--network host (hostNetwork of a pod)" },
  pid: { what: "processes", words: "--pid host (hostPID of a pod)" },
  ipc: { what: "shared memory and message queues", words: "--ipc host (hostIPC of a pod)" },
  uts: { what: "host name", words: "--uts host" },
  mount: { what: "mounts" },
};

export function judgeNamespaces(spec: Spec, { guestNamespace, isHostNetwork }: Circumstances): Finding[] {
  const namespaces = spec.linux?.namespaces ?? [];
  const absent = Object.entries(shared)
    .filter(([type]) => !namespaces.some((namespace) => namespace.type === type))
    .map(([type, { what, words }]): Finding => {
      const leaveOut = words === undefined ? "" : `leave out ${words}, or `;
      const reason = `a VM cannot share the host's ${what}: ${leaveOut}add a namespace of type "${type}"`;
      return { verdict: "refused", path: "linux.namespaces", reason };
    });
  const joined = namespaces.flatMap((namespace, index): Finding[] => {
    const { type, path = "" } = namespace;
    if (path === "" || guestNamespace?.(namespace) !== undefined) return [];
    if (type === "network" && isHostNetwork?.(path) !== true) return [];
    // Docker names the host's network by a path.
    const reason =
      type === "network"
        ? `${path} is the host's own network, which a VM cannot share: leave out --network host`
        : `${path}: only containers of the same virtual machine can share it: name the network namespace of the one that has it as well`;
    return [{ verdict: "refused", path: `linux.namespaces[${index}].path`, reason }];
  });
  return [...absent, ...joined];
}
