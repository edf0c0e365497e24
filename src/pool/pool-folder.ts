/**
 * Where pools are: a folder each, named after the machines in it, KEY or KEY.images, which appears by one rename with its record in it; that of a warm
 * template's keeper (standby.ts) is KEY.standby, KEY.standby-image or KEY.standby-shim, and KEY.spare or KEY.spare-image for those who come while none of these waits.
 *
 *     ROOT/KEY/pool.json      who keeps it, and what it holds (PoolRecord)
 *             /ledger.jsonl   what it took of the host besides (host/ledger.ts)
 *             /rehearsal/     the bundle with which its sandboxes rehearse
 *             /N.sock         where member N waits to be asked, and only while it does
 *             /N/             the member's own files
 */
import { mkdirSync, mkdtempSync, readdirSync, readFileSync, renameSync, rmdirSync, rmSync, writeFileSync } from "node:fs";
import { basename, dirname, join } from "node:path";
import { HuskError } from "../errors.ts";
import { isAlive, type ProcessIdentity } from "../host/process-identity.ts";
import { hasCode } from "../host/system-error.ts";
import { integer, object, read, string } from "../narrow.ts";

export interface PoolRecord {
  readonly process: ProcessIdentity;
  /** How many sandboxes it keeps ready. */
  readonly size: number;
  /** In words for people. */
  readonly machine: string;
}

const recordReader = object<PoolRecord>({
  process: object<ProcessIdentity>({ pid: integer(1), start: integer(0) }),
  size: integer(1),
  machine: string,
});

/** A pool as it is on disk. */
export interface PoolFolder {
  readonly key: string;
  readonly path: string;
  readonly ledger: string;
  readonly rehearsal: string;
}

/** Begins the names of folders that are being made or removed. */
const passing = "~";

/** The folder of all pools: HUSK_POOL; undefined where that is empty. Front looks there too (guest-agent/helper/src/front/pool.rs). */
export function poolRoot(env: NodeJS.ProcessEnv, euid: number = process.geteuid?.() ?? 0): string | undefined {
  const { HUSK_POOL: chosen, XDG_RUNTIME_DIR: runtime } = env;
  if (chosen !== undefined) return chosen === "" ? undefined : chosen;
  if (euid === 0) return "/run/husk-pool";
  return runtime === undefined || runtime === "" ? undefined : join(runtime, "husk-pool");
}

export function poolFolder(root: string, key: string): PoolFolder {
  const path = join(root, key);
  return { key, path, ledger: join(path, "ledger.jsonl"), rehearsal: join(path, "rehearsal") };
}

/** The name of a pool that somebody keeps by `husk pool`. `shares`: MemberOrder.shares. */
export function poolName(key: string, shares: boolean): string {
  return shares ? key : `${key}.images`;
}

/** The name of the pool in which one sandbox stands by for the next container of a kind on a machine of that name. */
export function standbyName(key: string, kind: StandbyKind): string {
  return `${key}${suffixes[kind]}`;
}

/** The name of the pool in which a supervisor without a sandbox stands by; undefined: for such containers there is none. */
export function spareName(key: string, kind: StandbyKind): string | undefined {
  const suffix = spareSuffixes[kind];
  return suffix === undefined ? undefined : `${key}${suffix}`;
}

/** Whether a pool of that name is kept by a template's keeper. */
export function isStandby(name: string): boolean {
  return [...Object.values(suffixes), ...Object.values(spareSuffixes)].some((suffix) => name.endsWith(suffix));
}

/**
 * What for: containers of the command line that have folders of the host, those of it whose files are all in images, and those of containerd's shim that have
 * folders.
 */
export type StandbyKind = "folder" | "image" | "shim";

const suffixes: Readonly<Record<StandbyKind, string>> = { folder: ".standby", image: ".standby-image", shim: ".standby-shim" };

const spareSuffixes: Readonly<Partial<Record<StandbyKind, string>>> = { folder: ".spare", image: ".spare-image" };

/** The socket of a member. */
export function memberSocket(folder: string, name: string): string {
  return join(folder, `${name}.sock`);
}

/** Makes a pool's folder. Throws `already-exists` where there is such a pool, dead or alive; `host` where the folder cannot be made. */
export function claimPool(root: string, key: string, record: PoolRecord): PoolFolder {
  const folder = poolFolder(root, key);
  let draft: string | undefined;
  try {
    mkdirSync(root, { recursive: true, mode: 0o700 });
    draft = mkdtempSync(join(root, `${passing}new-`)); // mode 0700, by mkdtemp(3)
    writeFileSync(join(draft, "pool.json"), `${JSON.stringify(record, undefined, 2)}\n`, { mode: 0o600 });
    renameSync(draft, folder.path);
    return folder;
  } catch (cause) {
    if (draft !== undefined) rmSync(draft, { recursive: true, force: true });
    if (hasCode(cause, "ENOTEMPTY", "EEXIST")) throw new HuskError("already-exists", `there is a pool ${key} already`);
    throw new HuskError("host", `cannot make the pool's folder ${folder.path}`, { cause });
  }
}

/** Removes a pool's folder, and that of all pools with the last. */
export function removePoolFolder({ path }: PoolFolder): void {
  const grave = join(dirname(path), `${passing}old-${process.pid}-${basename(path)}`);
  try {
    renameSync(path, grave);
  } catch (cause) {
    if (hasCode(cause, "ENOENT")) return;
    throw new HuskError("host", `cannot remove the pool's folder ${path}`, { cause });
  }
  rmSync(grave, { recursive: true, force: true });
  removeEmpty(dirname(path));
}

/** A pool that is there. */
export interface ListedPool {
  readonly folder: PoolFolder;
  /** undefined: it cannot be read. */
  readonly record: PoolRecord | undefined;
  readonly alive: boolean;
  /** How many sandboxes wait to be taken. */
  readonly ready: number;
}

export function listPools(root: string): ListedPool[] {
  return names(root)
    .filter((name) => !name.startsWith(passing))
    .toSorted()
    .map((key) => {
      const folder = poolFolder(root, key);
      const record = readRecord(folder.path);
      const ready = names(folder.path).filter((name) => name.endsWith(".sock")).length;
      return { folder, record, alive: record !== undefined && isAlive(record.process), ready };
    });
}

/** Folders of a making or a removal that was interrupted. */
export function poolLeftovers(root: string): string[] {
  return names(root)
    .filter((name) => name.startsWith(passing))
    .map((name) => join(root, name));
}

function readRecord(folder: string): PoolRecord | undefined {
  try {
    return read(recordReader, JSON.parse(readFileSync(join(folder, "pool.json"), "utf8")));
  } catch {
    return undefined; // it is being removed, or damaged: nobody's
  }
}

function removeEmpty(folder: string): void {
  try {
    rmdirSync(folder);
  } catch (cause) {
    if (!hasCode(cause, "ENOTEMPTY", "EEXIST", "ENOENT", "EBUSY")) throw cause; // others have pools in it, or have removed it
  }
}

function names(folder: string): string[] {
  try {
    return readdirSync(folder);
  } catch (cause) {
    if (hasCode(cause, "ENOENT", "ENOTDIR")) return [];
    throw new HuskError("host", `cannot list ${folder}`, { cause });
  }
}
