/** Reads a record from parsed JSON, field by field: a file on disk is outside input, whoever wrote it. */
import type { HostHook } from "../host/hooks.ts";
import type { ProcessIdentity } from "../host/process-identity.ts";
import {
  absolutePath,
  boolean,
  integer,
  list,
  map,
  object,
  oneOf,
  optional,
  Place,
  type Reader,
  read,
  ShapeError,
  string,
  wrong,
} from "../narrow.ts";
import type { ContainerExit, ContainerRecord } from "./record.ts";

const identity = object<ProcessIdentity>({ pid: integer(1), start: integer(0) });

const record = object<ContainerRecord>({
  version: (value, place) => (value === 1 ? value : wrong(place, "1", value)),
  ociVersion: string,
  id: string,
  status: oneOf(["creating", "created", "running", "paused", "stopped"]),
  pid: integer(0),
  pidStart: integer(0),
  supervisor: nullable(identity),
  bundle: absolutePath,
  rootfs: absolutePath,
  created: string,
  owner: string,
  annotations: map(string),
  terminal: boolean,
  foreground: boolean,
  poststop: list(
    object<HostHook>({ path: absolutePath, args: optional(list(string)), env: optional(list(string)), timeout: optional(integer(0)) }),
  ),
  exit: optional(object<ContainerExit>({ code: optional(integer(0)), signal: optional(integer(1)), at: string, reason: optional(string) })),
});

/** The record of container `id` in `value`. Throws a ShapeError that names the first field that is not as it must be. */
export function parseRecord(value: unknown, id: string): ContainerRecord {
  const result = read(record, value);
  if (result.id !== id) throw new ShapeError(new Place().key("id"), `expected ${JSON.stringify(id)}, got ${JSON.stringify(result.id)}`);
  return result;
}

function nullable<T>(reader: Reader<T>): Reader<T | null> {
  return (value, place) => (value === null ? null : reader(value, place));
}
