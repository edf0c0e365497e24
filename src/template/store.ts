/**
 * Where templates are kept: a folder each, named by its key, which appears by one rename with everything in it.
 *
 *     FOLDER/KEY/template.json   what it is, and how to tell that it is whole (Manifest); its time is that of the last use
 *               /ram             the guest's RAM; holes are zeroes
 *               /state           all else of the machine, as QEMU wrote it
 *     FOLDER/KEY.making/         one that is being made; owner.json in it says by whom
 *     FOLDER/KEY.failed          why the last attempt failed; for a while nobody tries again
 *     FOLDER/~old-…              one that is being removed
 */
import { createHash } from "node:crypto";
import {
  lstatSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmSync,
  statSync,
  utimesSync,
  writeFileSync,
} from "node:fs";
import { basename, join } from "node:path";
import { HuskError } from "../errors.ts";
import { identify, isAlive, type ProcessIdentity } from "../host/process-identity.ts";
import { hasCode } from "../host/system-error.ts";
import { integer, object, optional, type Reader, read, string } from "../narrow.ts";
import { endZygote, zygoteLeftovers } from "./zygote.ts";

/** What is written beside a template's files. */
export interface Manifest {
  /** In words for people. */
  readonly machine: string;
  /** Whose it is; absent from manifests of a husk that knew no tenants. */
  readonly tenant?: string | undefined;
  readonly createdAt: string;
  readonly ramBytes: number;
  /** The time of the RAM file's last change, in nanoseconds since 1970: a template is never written to again. */
  readonly ramChanged: string;
  /** As `husk-helper template sum` has it. */
  readonly ramSum: string;
  readonly stateSha256: string;
}

/** A template that is there, and whole as far as can be told without reading its RAM; each copy of that is checked. */
export interface Template {
  readonly key: string;
  readonly folder: string;
  readonly ram: string;
  readonly state: string;
  readonly manifest: Manifest;
}

const readManifest: Reader<Manifest> = object<Manifest>({
  machine: string,
  tenant: optional(string),
  createdAt: string,
  ramBytes: integer(1),
  ramChanged: string,
  ramSum: string,
  stateSha256: string,
});

const readOwner: Reader<ProcessIdentity> = object<ProcessIdentity>({ pid: integer(1), start: integer(0) });

const making = ".making";
const failed = ".failed";
const passing = "~";

/** Much more than QEMU writes of a machine of ours; a manifest is far smaller. */
const maxStateBytes = 64 * 1024 * 1024;
const maxManifestBytes = 64 * 1024;

/** A template that was used within this is not removed to make room for another: with more kinds of sandboxes than room, each start would make one. */
const inUseMs = 10 * 60_000;

/** How long a failed attempt keeps others from being made: a host that cannot make templates must not lose seconds at each start. */
const failureHoldsMs = 10 * 60_000;

/** What templates may take. */
export interface Room {
  /** How many are kept. */
  readonly most: number;
  /** What they take on the disk, all together. */
  readonly mostBytes: number;
}

/** What a template takes on the disk, in bytes: what the guest never touched is a hole in its RAM's file. */
export function diskBytes({ ram, state }: Pick<Template, "ram" | "state">): number {
  const blocks = [ram, state].map((path) => statSync(path, { throwIfNoEntry: false })?.blocks ?? 0); // it may be removed meanwhile
  return blocks.reduce((sum, each) => sum + each * 512, 0);
}

function bytesOf(templates: readonly Template[]): number {
  return templates.reduce((sum, template) => sum + diskBytes(template), 0);
}

function isIdle({ usedAt }: { readonly usedAt: Date }): boolean {
  return Date.now() - usedAt.getTime() > inUseMs;
}

export class TemplateStore {
  readonly folder: string;
  readonly #owner: number;

  /** `owner`: the user whose folder it must be; nobody else may put templates into it, since a guest that another has made could do anything. */
  constructor(folder: string, owner: number = process.geteuid?.() ?? 0) {
    this.folder = folder;
    this.#owner = owner;
  }

  /** The template of that key; undefined where there is none. Throws `host` for one that is damaged, or a folder that others can write to. */
  find(key: string): Template | undefined {
    const folder = join(this.folder, key);
    const [ram, state] = [join(folder, "ram"), join(folder, "state")];
    try {
      this.#checkFolder();
      const manifest = read(readManifest, readJson(join(folder, "template.json")));
      const problem = describeDamage(manifest, ram, state);
      if (problem !== undefined) throw new Error(problem);
      return { key, folder, ram, state, manifest };
    } catch (cause) {
      if (hasCode(cause, "ENOENT") && !exists(folder)) return undefined;
      throw cause instanceof HuskError ? cause : new HuskError("host", `the template ${key} cannot be used`, { cause });
    }
  }

  /** When a template was last used, in milliseconds since 1970; 0 where it is gone. */
  usedAt({ folder }: Pick<Template, "folder">): number {
    return statSync(join(folder, "template.json"), { throwIfNoEntry: false })?.mtimeMs ?? 0;
  }

  /** Notes that a template was used just now. */
  touch(template: Template): void {
    const now = new Date();
    try {
      utimesSync(join(template.folder, "template.json"), now, now);
    } catch (cause) {
      if (!hasCode(cause, "ENOENT", "EROFS")) throw cause; // removed meanwhile, or for reading only: its use goes on
    }
  }

  /** The keys of all templates, whole or damaged. */
  keys(): string[] {
    return this.#names().filter((name) => /^[0-9a-f]{32}$/.test(name));
  }

  /** The templates that are there, the last used first, and what is wrong with those that cannot be used. */
  list(): { readonly templates: readonly (Template & { readonly usedAt: Date })[]; readonly damaged: readonly HuskError[] } {
    const damaged: HuskError[] = [];
    const templates = this.keys().flatMap((key) => {
      try {
        const template = this.find(key);
        return template === undefined ? [] : [{ ...template, usedAt: statSync(join(template.folder, "template.json")).mtime }];
      } catch (error) {
        if (!(error instanceof HuskError)) throw error;
        damaged.push(error);
        return [];
      }
    });
    return { templates: templates.toSorted((a, b) => b.usedAt.getTime() - a.usedAt.getTime()), damaged };
  }

  /**
   * Claims the making of a template: an empty folder for its files, which `publish` puts in its place. Answers a sentence where that must wait: another
   * process makes it, or the last attempt has just failed. Throws `host`.
   */
  claim(key: string, force = false): { readonly draft: string } | { readonly wait: string } {
    mkdirSync(this.folder, { recursive: true, mode: 0o700 });
    this.#checkFolder();
    const failure = force ? undefined : this.#lastFailure(key);
    if (failure !== undefined) return { wait: `making it failed lately: ${failure}` };
    const draft = mkdtempSync(join(this.folder, `${passing}new-`));
    writeFileSync(join(draft, "owner.json"), JSON.stringify(identify(process.pid)));
    const target = join(this.folder, `${key}${making}`);
    for (;;) {
      try {
        renameSync(draft, target); // refused where somebody has claimed it: such a folder is never empty
        return { draft: target };
      } catch (cause) {
        if (!hasCode(cause, "ENOTEMPTY", "EEXIST")) throw new HuskError("host", `cannot make ${target}`, { cause });
      }
      const owner = ownerOf(target);
      if (owner !== undefined && isAlive(owner)) {
        rmSync(draft, { recursive: true, force: true });
        return { wait: `process ${owner.pid} is making it` };
      }
      this.#bury(target);
    }
  }

  /** Puts a finished draft in its place; one that was there is removed. Throws `host`. */
  publish(key: string, draft: string, manifest: Manifest): Template {
    const folder = join(this.folder, key);
    rmSync(join(draft, "owner.json"));
    writeFileSync(join(draft, "template.json"), `${JSON.stringify(manifest, null, 2)}\n`, { mode: 0o600 });
    this.#bury(folder);
    renameSync(draft, folder);
    rmSync(join(this.folder, `${key}${failed}`), { force: true });
    return { key, folder, ram: join(folder, "ram"), state: join(folder, "state"), manifest };
  }

  /** Gives a draft up, and remembers why. */
  giveUp(key: string, draft: string, why: string): void {
    this.#bury(draft);
    writeFileSync(join(this.folder, `${key}${failed}`), why, { mode: 0o600 });
  }

  /** Removes a template. What runs from it goes on: it has the files open. False where there is none. */
  remove(key: string): boolean {
    rmSync(join(this.folder, `${key}${failed}`), { force: true });
    endZygote({ folder: join(this.folder, key) });
    return this.#bury(join(this.folder, key));
  }

  /** Whether another template may be made: there is room for one, or one that nobody has used for long can go. */
  hasRoom({ most, mostBytes }: Room): boolean {
    const { templates } = this.list();
    const bytes = bytesOf(templates);
    const last = templates.at(-1);
    return last === undefined || (templates.length < most && bytes < mostBytes) || isIdle(last);
  }

  /** Removes those used least recently, until the others fit. One that was used lately stays: somebody may be about to read it. */
  limit({ most, mostBytes }: Room): void {
    const { templates } = this.list();
    let count = templates.length;
    let bytes = bytesOf(templates);
    for (const template of templates.toReversed()) {
      if ((count <= most && bytes <= mostBytes) || !isIdle(template)) return;
      count -= 1;
      bytes -= diskBytes(template);
      this.remove(template.key);
    }
  }

  /** What died makers and removers have left, as paths. */
  leftovers(): string[] {
    const dead = (name: string): boolean => {
      const owner = ownerOf(join(this.folder, name));
      return owner === undefined || !isAlive(owner);
    };
    const own = this.#names()
      .filter((name) => (name.startsWith(passing) || name.endsWith(making)) && dead(name))
      .map((name) => join(this.folder, name));
    return [...own, ...this.keys().flatMap((key) => zygoteLeftovers({ folder: join(this.folder, key) }))];
  }

  #checkFolder(): void {
    const { uid, mode } = lstatSync(this.folder);
    if (uid === this.#owner && (mode & 0o022) === 0) return;
    throw new HuskError("host", `${this.folder} can be written to by others, so its templates are not used`, {
      hint: `chown ${this.#owner} and chmod go-w it`,
    });
  }

  #lastFailure(key: string): string | undefined {
    const file = join(this.folder, `${key}${failed}`);
    try {
      return Date.now() - statSync(file).mtimeMs > failureHoldsMs ? undefined : readFileSync(file, "utf8").slice(0, 1000);
    } catch (cause) {
      if (hasCode(cause, "ENOENT")) return undefined;
      throw cause;
    }
  }

  /** Removes a folder as if at once. False where there is none. */
  #bury(path: string): boolean {
    const grave = join(mkdtempSync(join(this.folder, `${passing}old-`)), basename(path));
    try {
      renameSync(path, grave);
      return true;
    } catch (cause) {
      if (hasCode(cause, "ENOENT")) return false;
      throw new HuskError("host", `cannot remove ${path}`, { cause });
    } finally {
      rmSync(join(grave, ".."), { recursive: true, force: true });
    }
  }

  #names(): string[] {
    try {
      return readdirSync(this.folder);
    } catch (cause) {
      if (hasCode(cause, "ENOENT")) return [];
      throw new HuskError("host", `cannot list the templates in ${this.folder}`, { cause });
    }
  }
}

/** The hash that Manifest.stateSha256 holds. Throws where the file is larger than any state. */
export function hashState(path: string): string {
  const { size } = statSync(path);
  if (size > maxStateBytes) throw new Error(`${path} has ${size} bytes, more than any machine's state`);
  return createHash("sha256").update(readFileSync(path)).digest("hex");
}

/** The value that Manifest.ramChanged holds. */
export function changeTime(path: string): string {
  return String(statSync(path, { bigint: true }).mtimeNs);
}

function describeDamage({ ramBytes, ramChanged, stateSha256 }: Manifest, ram: string, state: string): string | undefined {
  const { size } = statSync(ram);
  if (size !== ramBytes) return `its RAM has ${size} bytes, not ${ramBytes}`;
  if (changeTime(ram) !== ramChanged) return "its RAM was written to";
  return hashState(state) === stateSha256 ? undefined : "its state was changed";
}

function ownerOf(folder: string): ProcessIdentity | undefined {
  try {
    return read(readOwner, readJson(join(folder, "owner.json")));
  } catch {
    return undefined; // none, or none that can be read: nobody's
  }
}

function readJson(path: string): unknown {
  const { size } = statSync(path);
  if (size > maxManifestBytes) throw new Error(`${path} has ${size} bytes`);
  return JSON.parse(readFileSync(path, "utf8"));
}

function exists(path: string): boolean {
  return statSync(path, { throwIfNoEntry: false }) !== undefined;
}
