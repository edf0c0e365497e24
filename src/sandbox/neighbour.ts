/**
 * The neighbour of a container: one that has the network namespace which the other's bundle names, so that both belong into one virtual machine. Engines name it
 * by /proc/PID/ns/net, PID being a stand-in's, or by a file that it is bound to; what tells it apart is the namespace itself.
 */
import { HuskError } from "../errors.ts";
import { identify, type ProcessIdentity } from "../host/process-identity.ts";
import { namespaceAt } from "../oci/bundle.ts";
import { type GuestNamespace, sharedTypes } from "../oci/support.ts";
import type { Namespace } from "../oci/types.ts";
import { type ContainerRecord, listRecords } from "./record.ts";

/** A container below `root` that has the network namespace at `path`. Throws `invalid-argument` where there is no such namespace. */
export function findNeighbour(root: string, path: string): ContainerRecord | undefined {
  const wanted = namespaceAt(path);
  if (wanted === undefined) {
    throw new HuskError("invalid-argument", `config.json: linux.namespaces: ${path} is no namespace`, {
      hint: "a container's ends with its last process",
    });
  }
  return listRecords(root).records.find((record) => hasStandIn(record) && namespaceAt(`/proc/${record.pid}/ns/net`) === wanted);
}

/** Where a namespace's path leads, for a container in the sandbox of that supervisor: to another container's, where it is that of its stand-in. */
export function namespacesOf(root: string, supervisor: ProcessIdentity): (namespace: Namespace) => GuestNamespace | undefined {
  return ({ type, path = "" }) => {
    const [, pid] = /^\/proc\/(\d+)\/ns\/\w+$/.exec(path) ?? [];
    if (pid === undefined || !sharedTypes.includes(type)) return undefined;
    const found = listRecords(root).records.find((record) => record.pid === Number(pid) && hasStandIn(record));
    const isOfThis = found?.supervisor?.pid === supervisor.pid && found.supervisor.start === supervisor.start;
    return found !== undefined && isOfThis ? { container: found.id } : undefined;
  };
}

/** Whether its stand-in lives, and the PID is not somebody else's by now. */
function hasStandIn({ pid, pidStart }: ContainerRecord): boolean {
  return pid > 0 && identify(pid)?.start === pidStart;
}
