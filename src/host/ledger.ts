/**
 * What a sandbox took from the host that the kernel does not take back by itself, and how to give it back. Each entry is on disk before the
 * thing is taken, so that whoever cleans up after a supervisor that was killed (delete, gc) knows of it; an entry of what was never taken,
 * or was given back already, is no error.
 */
import { appendFileSync, readFileSync, rmSync } from "node:fs";
import { isAbsolute, normalize } from "node:path";
import { HuskError } from "../errors.ts";
import { removeCgroup } from "./cgroup-removal.ts";
import type { OwnScope } from "./scope.ts";
import { hasCode } from "./system-error.ts";

export type LedgerEntry =
  /** A cgroup folder of our own. */
  | { readonly kind: "cgroup"; readonly path: string }
  /** A scope unit of systemd's, with whatever is left in it. */
  | ({ readonly kind: "scope" } & OwnScope)
  /** A folder, with all that is in it. */
  | { readonly kind: "folder"; readonly path: string }
  | { readonly kind: "file"; readonly path: string }
  /** Whatever is mounted at a folder of ours, and below it. */
  | { readonly kind: "mount"; readonly path: string }
  | TapEntry;

/** A tap of the user `owner`'s in a network namespace that others own, and its link's traffic control. An older version's ledger does not say whose it is. */
export interface TapEntry {
  readonly kind: "tap";
  readonly netns: string;
  readonly link: string;
  readonly tap: string;
  readonly owner?: number;
}

/** A sandbox takes a few dozen things at most; a longer file is not ours. */
const maxLedgerBytes = 1024 * 1024;

/** Writes an entry down. Call it before taking the thing. Throws `host`. */
export function noteInLedger(path: string, entry: LedgerEntry): void {
  try {
    // One write of one line: a process that is killed leaves whole lines. No fsync: run folders are on a tmpfs, which a crash of the host empties.
    appendFileSync(path, `${JSON.stringify(entry)}\n`, { mode: 0o600 });
  } catch (cause) {
    throw new HuskError("host", `cannot write the ledger ${path}`, { cause });
  }
}

/** The entries of a ledger, oldest first; none where there is no such file. Throws `internal` for one that is damaged. */
export function readLedger(path: string): LedgerEntry[] {
  let text: string;
  try {
    text = readFileSync(path, "utf8");
  } catch (cause) {
    if (hasCode(cause, "ENOENT")) return [];
    throw new HuskError("host", `cannot read the ledger ${path}`, { cause });
  }
  if (text.length > maxLedgerBytes) throw new HuskError("internal", `the ledger ${path} has more than ${maxLedgerBytes} bytes`);
  const lines = text.split("\n");
  lines.pop(); // "", or the line whose writer had no space left: what it names was not taken
  return lines.map((line, index) => {
    const entry = parseEntry(line);
    if (entry === undefined) throw new HuskError("internal", `the ledger ${path} is damaged at line ${index + 1}`);
    return entry;
  });
}

/** What the helper does, by the folders that stand above this one. */
export interface GiveBackOptions {
  readonly detachTap: (entry: TapEntry) => Promise<void>;
  readonly unmount: (path: string) => Promise<void>;
}

/**
 * Gives everything back, last taken first, and goes on after a failure. Resolves to one error for each thing that could not be given back.
 * Calling it again is harmless.
 */
export async function giveBack(entries: readonly LedgerEntry[], options: GiveBackOptions): Promise<HuskError[]> {
  const failures: HuskError[] = [];
  for (const entry of entries.toReversed()) {
    try {
      await giveBackOne(entry, options);
    } catch (cause) {
      failures.push(new HuskError("host", `cannot give back ${describeEntry(entry)}`, { cause }));
    }
  }
  return failures;
}

/** An entry in words: `the cgroup /sys/fs/cgroup/husk/a`. */
export function describeEntry(entry: LedgerEntry): string {
  switch (entry.kind) {
    case "tap":
      return `the tap ${entry.tap} of ${entry.link} in ${entry.netns}`;
    case "scope":
      return `the scope ${entry.unit}`;
    default:
      return `the ${entry.kind} ${entry.path}`;
  }
}

async function giveBackOne(entry: LedgerEntry, options: GiveBackOptions): Promise<void> {
  switch (entry.kind) {
    case "cgroup":
      return await removeCgroup(entry.path);
    case "scope":
      return await (await import("./scope.ts")).stopScope(entry);
    case "folder":
      return removeFolder(entry.path);
    case "file":
      return rmSync(entry.path, { force: true });
    case "mount":
      return await options.unmount(entry.path);
    case "tap":
      return await options.detachTap(entry);
    default:
      entry satisfies never;
  }
}

/** Removes a folder, unless something is mounted in it: that would be somebody's files. */
function removeFolder(path: string): void {
  const mounted = readFileSync("/proc/self/mountinfo", "utf8")
    .split("\n")
    .map((line) => line.split(" ")[4] ?? "")
    .find((point) => point === path || point.startsWith(`${path}/`));
  if (mounted !== undefined) throw new Error(`${mounted} is a mount point`);
  rmSync(path, { recursive: true, force: true });
}

function parseEntry(line: string): LedgerEntry | undefined {
  let value: unknown;
  try {
    value = JSON.parse(line);
  } catch {
    return undefined;
  }
  if (typeof value !== "object" || value === null) return undefined;
  const { kind, path, netns, link, tap, owner, unit, description } = value as Readonly<Record<string, unknown>>;
  if (kind === "tap") {
    if (typeof netns !== "string" || typeof link !== "string" || typeof tap !== "string") return undefined;
    return { kind, netns, link, tap, ...(typeof owner === "number" ? { owner } : {}) };
  }
  if (kind === "scope") return typeof unit === "string" && typeof description === "string" ? { kind, unit, description } : undefined;
  // A relative path, or one with "..", is none that we wrote.
  if (typeof path !== "string" || !isAbsolute(path) || normalize(path) !== path || path === "/") return undefined;
  return kind === "cgroup" || kind === "folder" || kind === "file" || kind === "mount" ? { kind, path } : undefined;
}
