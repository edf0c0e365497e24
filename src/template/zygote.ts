/**
 * Zygotes: a template's machine that has been started, has gone the way of a container once, and stands still for good, in a QEMU that makes copies of itself
 * (fork(2); guest-agent/helper/preload/zygote.rs). A copy has what that QEMU has translated, which under emulation is most of what a start costs.
 *
 *     TEMPLATE/zygote/owner.json    the process that keeps it, from the beginning
 *                    /zygote.json   how it is reached (Zygote), once a copy of it has answered
 *                    /zygote.sock   on which copies are asked for
 *             /zygote.log           what its keeper complained of
 */
import { mkdtempSync, readdirSync, readFileSync, renameSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { HuskError } from "../errors.ts";
import { identify, isAlive, type ProcessIdentity, signalProcess } from "../host/process-identity.ts";
import { hasCode } from "../host/system-error.ts";
import { integer, list, nonEmptyString, object, type Reader, read, string } from "../narrow.ts";
import { type Greeting, qmpVersion } from "../qmp/message.ts";
import type { Template } from "./store.ts";

/** A zygote that is ready. */
export interface Zygote {
  /** Its QEMU. */
  readonly process: ProcessIdentity;
  /** The unix socket on which copies are asked for. */
  readonly socket: string;
  /** The file of its memory, which nobody can change any more. */
  readonly memory: string;
  /** Of `memory`, as `husk-helper template sum` has it. */
  readonly sum: string;
  /** The descriptors that its QEMU has in place of the disks of its copies. */
  readonly disks: readonly number[];
  /** What its QEMU has said of itself: it greets once. */
  readonly greeting: Greeting;
}

const identity: Reader<ProcessIdentity> = object<ProcessIdentity>({ pid: integer(1), start: integer(0) });
const readRecord: Reader<Zygote> = object<Zygote>({
  process: identity,
  socket: nonEmptyString,
  memory: nonEmptyString,
  sum: nonEmptyString,
  disks: list(integer(3)),
  greeting: object<Greeting>({ version: qmpVersion, capabilities: list(string) }),
});

const drafts = "~zygote-";

/** Its folder in the template's. */
export function zygoteFolder({ folder }: Pick<Template, "folder">): string {
  return join(folder, "zygote");
}

/** The template's zygote, where there is one and it lives. */
export function findZygote(template: Pick<Template, "folder">): Zygote | undefined {
  try {
    const zygote = read(readRecord, JSON.parse(readFileSync(join(zygoteFolder(template), "zygote.json"), "utf8")));
    return isAlive(zygote.process) ? zygote : undefined;
  } catch {
    return undefined; // none, or one that is being made or removed: whatever is wrong with it, the template itself does
  }
}

/** Claims the making of the template's zygote for this process. False where somebody else keeps one, or makes it. Throws `host`. */
export function claimZygote(template: Pick<Template, "folder">): boolean {
  const target = zygoteFolder(template);
  const draft = mkdtempSync(join(template.folder, drafts));
  writeFileSync(join(draft, "owner.json"), JSON.stringify(identify(process.pid)));
  try {
    if (isKept(target)) return false;
    rmSync(target, { recursive: true, force: true });
    renameSync(draft, target); // refused where somebody was faster: such a folder is never empty
    return true;
  } catch (cause) {
    if (hasCode(cause, "ENOTEMPTY", "EEXIST")) return false;
    throw new HuskError("host", `cannot make ${target}`, { cause });
  } finally {
    rmSync(draft, { recursive: true, force: true });
  }
}

/** Whether somebody keeps the template's zygote, or makes it. */
export function hasZygote(template: Pick<Template, "folder">): boolean {
  return isKept(zygoteFolder(template));
}

/** Who keeps the template's zygote, or makes it; undefined where nobody does. */
export function zygoteKeeper(template: Pick<Template, "folder">): ProcessIdentity | undefined {
  const owner = ownerOf(zygoteFolder(template));
  return owner !== undefined && isAlive(owner) ? owner : undefined;
}

function isKept(folder: string): boolean {
  const owner = ownerOf(folder);
  return owner !== undefined && isAlive(owner);
}

/** Lets copies be made. */
export function publishZygote(template: Pick<Template, "folder">, zygote: Zygote): void {
  const path = join(zygoteFolder(template), "zygote.json");
  writeFileSync(`${path}.new`, JSON.stringify(zygote), { mode: 0o600 });
  renameSync(`${path}.new`, path);
}

/** Ends the template's zygote, where there is one. Copies of it go on. */
export function endZygote(template: Pick<Template, "folder">): void {
  const folder = zygoteFolder(template);
  const owner = ownerOf(folder);
  rmSync(join(folder, "zygote.json"), { force: true });
  if (owner !== undefined) signalProcess(owner, "SIGTERM");
}

/** What dead keepers have left in the template's folder, as paths. */
export function zygoteLeftovers({ folder }: Pick<Template, "folder">): string[] {
  const names = readdirSync(folder).filter((name) => name === "zygote" || name.startsWith(drafts));
  return names.map((name) => join(folder, name)).filter((path) => !isKept(path));
}

function ownerOf(folder: string): ProcessIdentity | undefined {
  try {
    return read(identity, JSON.parse(readFileSync(join(folder, "owner.json"), "utf8")));
  } catch {
    return undefined; // none, or none that can be read: nobody's
  }
}
