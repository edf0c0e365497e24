/** Reads a record from parsed JSON, field by field: a file on disk is outside input, whoever wrote it. */
import type { ProcessIdentity } from "../host/process-identity.ts";
import type { ContainerExit, ContainerRecord, ContainerStatus } from "./record.ts";

const statuses: readonly ContainerStatus[] = ["creating", "created", "running", "paused", "stopped"];

type Fields = Readonly<Record<string, unknown>>;

/** The record in `value`. Throws an Error that names the first field that is not as it must be. */
export function parseRecord(value: unknown, id: string): ContainerRecord {
  const fields = object(value, "the record");
  if (fields["version"] !== 1) throw new Error(`version: expected 1, got ${JSON.stringify(fields["version"])}`);
  if (fields["id"] !== id) throw new Error(`id: expected ${JSON.stringify(id)}, got ${JSON.stringify(fields["id"])}`);
  const status = statuses.find((known) => known === fields["status"]);
  if (status === undefined) throw new Error(`status: expected one of ${statuses.join(", ")}, got ${JSON.stringify(fields["status"])}`);
  const exit = fields["exit"] === undefined ? undefined : parseExit(object(fields["exit"], "exit"));
  return {
    version: 1,
    ociVersion: string(fields, "ociVersion"),
    id,
    status,
    pid: number(fields, "pid"),
    pidStart: number(fields, "pidStart"),
    supervisor: fields["supervisor"] === null ? null : parseIdentity(object(fields["supervisor"], "supervisor")),
    bundle: string(fields, "bundle"),
    rootfs: string(fields, "rootfs"),
    created: string(fields, "created"),
    owner: string(fields, "owner"),
    annotations: strings(object(fields["annotations"], "annotations")),
    terminal: boolean(fields, "terminal"),
    foreground: boolean(fields, "foreground"),
    ...(exit === undefined ? {} : { exit }),
  };
}

function parseIdentity(fields: Fields): ProcessIdentity {
  return { pid: number(fields, "pid"), start: number(fields, "start") };
}

function parseExit(fields: Fields): ContainerExit {
  return {
    ...(fields["code"] === undefined ? {} : { code: number(fields, "code") }),
    ...(fields["signal"] === undefined ? {} : { signal: number(fields, "signal") }),
    at: string(fields, "at"),
    ...(fields["reason"] === undefined ? {} : { reason: string(fields, "reason") }),
  };
}

function object(value: unknown, name: string): Fields {
  if (typeof value !== "object" || value === null || Array.isArray(value)) throw new Error(`${name}: expected an object`);
  return value as Fields;
}

function string(fields: Fields, name: string): string {
  const value = fields[name];
  if (typeof value !== "string") throw new Error(`${name}: expected a string, got ${JSON.stringify(value)}`);
  return value;
}

function number(fields: Fields, name: string): number {
  const value = fields[name];
  if (typeof value !== "number" || !Number.isSafeInteger(value) || value < 0) {
    throw new Error(`${name}: expected a whole number, got ${JSON.stringify(value)}`);
  }
  return value;
}

function boolean(fields: Fields, name: string): boolean {
  const value = fields[name];
  if (typeof value !== "boolean") throw new Error(`${name}: expected true or false, got ${JSON.stringify(value)}`);
  return value;
}

function strings(fields: Fields): Record<string, string> {
  return Object.fromEntries(Object.keys(fields).map((name) => [name, string(fields, name)]));
}
