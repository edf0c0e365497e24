/** `husk state`: from disk, whether or not the supervisor lives. */
import { type ContainerRecord, readRecord } from "../sandbox/record.ts";
import type { Invocation } from "./command-line.ts";

/** What it prints. Throws as `readRecord`. */
export function state({ globals, operands: [id = ""] }: Invocation<"state">): string {
  return `${JSON.stringify(publicState(readRecord(globals.root, id)), undefined, 2)}\n`;
}

/** A record as runc would print it: the runtime spec's state, what runc adds to it, and how the container ended. */
export function publicState(record: ContainerRecord): object {
  const { ociVersion, id, pid, status, bundle, rootfs, created, annotations, owner, exit } = record;
  return {
    ociVersion,
    id,
    pid,
    status,
    bundle,
    rootfs,
    created,
    ...(Object.keys(annotations).length === 0 ? {} : { annotations }),
    owner,
    ...(status === "stopped" && exit !== undefined ? { exit } : {}),
  };
}
