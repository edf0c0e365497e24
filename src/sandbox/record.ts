/**
 * A container's record: what is known of it on disk, so that state, list, kill and delete work whether or not its supervisor lives.
 * The supervisor is its only writer; what a reader gets is corrected by what the reader sees of the supervisor.
 */
import { readFileSync, renameSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { HuskError } from "../errors.ts";
import type { HostHook } from "../host/hooks.ts";
import { isAlive, type ProcessIdentity } from "../host/process-identity.ts";
import { hasCode } from "../host/system-error.ts";
import { parseRecord } from "./record-parser.ts";
import { claimRunFolder, listIds, type RunFolder, runFolder } from "./run-folder.ts";

/** The runtime spec's states, and runc's "paused". */
export type ContainerStatus = "creating" | "created" | "running" | "paused" | "stopped";

/** How a container ended: by a code, or by a signal. */
export interface ContainerExit {
  readonly code?: number;
  readonly signal?: number;
  /** When, in ISO 8601. */
  readonly at: string;
  /** Why, where the container's program did not end on its own account: "out of memory", "QEMU ended", ... */
  readonly reason?: string;
}

export interface ContainerRecord {
  readonly version: 1;
  readonly ociVersion: string;
  readonly id: string;
  readonly status: ContainerStatus;
  /** The stand-in's PID; 0 where there is none (yet, or any more). */
  readonly pid: number;
  /** The stand-in's start time (ProcessIdentity.start); 0 where there is none. */
  readonly pidStart: number;
  /** null: none is needed any more (the container is stopped and everything was given back). */
  readonly supervisor: ProcessIdentity | null;
  /** Absolute path of the bundle. */
  readonly bundle: string;
  /** Absolute path of the root file system. */
  readonly rootfs: string;
  /** When it was created, in ISO 8601. */
  readonly created: string;
  /** Name (or number) of the user who created it. */
  readonly owner: string;
  readonly annotations: Readonly<Record<string, string>>;
  readonly terminal: boolean;
  /** Whether a `husk run` in the foreground owns it, which deletes it at its end: nobody else will, so gc may. */
  readonly foreground: boolean;
  /** The hooks to run at its deletion: kept from its creation on, since later changes of config.json must not matter (runtime.md, "Lifecycle"). */
  readonly poststop: readonly HostHook[];
  readonly exit?: ContainerExit;
}

/** The reason that a container's record has where its supervisor vanished without a word. */
export const supervisorDied = "the sandbox's supervisor died";

/**
 * Makes the container's run folder, with its first record in it, and what `fill` puts into the path that it is given. Throws `already-exists` where the id is
 * taken.
 */
export function claimContainer(root: string, record: ContainerRecord, fill: (path: string) => void = () => {}): RunFolder {
  return claimRunFolder(root, record.id, (path) => {
    writeFileSync(join(path, "state.json"), encode(record), { mode: 0o600 });
    fill(path);
  });
}

/** How a hook is told of the container (runtime-spec, runtime.md, "State"). `status`: the record's, where nothing is said. */
export function hookState(record: ContainerRecord, status: ContainerStatus = record.status): object {
  const { ociVersion, id, pid, bundle, annotations } = record;
  return { ociVersion, id, status, pid: status === "stopped" ? 0 : pid, bundle, annotations };
}

/** Replaces the record in one step: a reader meets the old one or the new one. Only the supervisor calls this. */
export function writeRecord(folder: RunFolder, record: ContainerRecord): void {
  const draft = `${folder.state}.new`;
  try {
    writeFileSync(draft, encode(record), { mode: 0o600 });
    renameSync(draft, folder.state);
  } catch (cause) {
    throw new HuskError("host", `cannot write the state of container "${folder.id}"`, { cause });
  }
}

/**
 * The record of a container, as it is now: stopped by signal 9 where it says otherwise but its supervisor is gone.
 * Throws `not-found` for an unknown id, `host` where we may not read it, `internal` for a record that is damaged.
 */
export function readRecord(root: string, id: string, alive: (process: ProcessIdentity) => boolean = isAlive): ContainerRecord {
  const folder = runFolder(root, id);
  let text: string;
  try {
    text = readFileSync(folder.state, "utf8");
  } catch (cause) {
    if (hasCode(cause, "ENOENT", "ENOTDIR") && !listIds(root).includes(id)) {
      throw new HuskError("not-found", `container "${id}" does not exist`);
    }
    if (hasCode(cause, "EACCES", "EPERM")) {
      throw new HuskError("host", `cannot read the state of container "${id}"`, { cause, hint: "run husk as the user who created it" });
    }
    throw damaged(folder, cause);
  }
  let record: ContainerRecord;
  try {
    record = parseRecord(JSON.parse(text), id);
  } catch (cause) {
    throw damaged(folder, cause);
  }
  return withoutTheDead(record, alive);
}

/** Every container below `root`, sorted by id; records that cannot be read come as the error that says so. */
export function listRecords(root: string): { readonly records: readonly ContainerRecord[]; readonly errors: readonly HuskError[] } {
  const records: ContainerRecord[] = [];
  const errors: HuskError[] = [];
  for (const id of listIds(root)) {
    try {
      records.push(readRecord(root, id));
    } catch (error) {
      if (!(error instanceof HuskError)) throw error;
      if (error.code !== "not-found") errors.push(error); // not-found: deleted since the listing
    }
  }
  return { records, errors };
}

/** What a record means once its supervisor is gone: nobody can have let the container run on. */
function withoutTheDead(record: ContainerRecord, alive: (process: ProcessIdentity) => boolean): ContainerRecord {
  const supervised = record.supervisor !== null && alive(record.supervisor);
  if (supervised) return record;
  const stopped = { ...record, status: "stopped", pid: 0, pidStart: 0 } as const;
  return record.status === "stopped" ? stopped : { ...stopped, exit: { signal: 9, at: new Date().toISOString(), reason: supervisorDied } };
}

function encode(record: ContainerRecord): string {
  return `${JSON.stringify(record, undefined, 2)}\n`;
}

function damaged(folder: RunFolder, cause: unknown): HuskError {
  return new HuskError("internal", `the state of container "${folder.id}" in ${folder.state} cannot be read`, {
    cause,
    hint: `\`husk delete --force ${folder.id}\` removes what is left of it`,
  });
}
