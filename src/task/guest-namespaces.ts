/** Which namespaces of the guest a specification means that names those of processes on the host. */
import { type GuestNamespace, sharedTypes } from "../oci/support.ts";
import type { Namespace } from "../oci/types.ts";

/** Whose namespaces those of the process of that PID are in the guest, where it stands in for one of the sandbox's. */
export type NamespacesOf = (pid: number) => GuestNamespace | undefined;

/** The guest's namespace that an entry of `linux.namespaces` means; undefined where its path leads to none of the sandbox's. */
export function guestNamespaceOf({ type, path = "" }: Namespace, namespacesOf: NamespacesOf): GuestNamespace | undefined {
  const pid = /^\/proc\/(\d+)\/ns\/\w+$/.exec(path)?.[1];
  const found = pid === undefined ? undefined : namespacesOf(Number(pid));
  return found === "sandbox" || sharedTypes.includes(type) ? found : undefined;
}
