/**
 * A checkpoint's folder, which the caller names:
 *
 *     FOLDER/checkpoint.json   what it is (Manifest); it appears by one rename, as the last of all
 *           /memory-…          the guest's memory, as far as it is in use
 *           /state-…           all else of the machine, as QEMU wrote it
 *           /folder-…          what its server knew of the shared folder's files that were in use, where there is one
 *           /disk0-…           a disk, where the container went on writing to it
 *           /inventory.img     says nothing; by its being there, Podman knows a checkpoint that is whole
 *
 * The names end in a number of the checkpoint's own: a new one is written beside the old one, takes its place, and only then is that removed. A folder
 * whose checkpoint was interrupted holds the old one, or none.
 */
import { createHash, randomBytes } from "node:crypto";
import {
  closeSync,
  constants,
  fstatSync,
  lstatSync,
  mkdirSync,
  openSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmSync,
  writeFileSync,
} from "node:fs";
import { join } from "node:path";
import { HuskError } from "../errors.ts";
import { hasCode } from "../host/system-error.ts";
import { type Manifest, parseManifest, type SavedFile } from "./manifest.ts";

const manifestName = "checkpoint.json";
/** CRIU's name for its own. */
const podmansProof = "inventory.img";
/** What a checkpoint's other files are called. */
const ownNames = /^(memory|state|folder|disk\d+|manifest)-[0-9a-f]{16}$/;

/** A specification of at most 4 MiB, as text in text, and little else. */
const maxManifestBytes = 16 * 1024 * 1024;
/** Much more than QEMU writes of a machine of ours whose memory is apart. */
export const maxStateBytes = 64 * 1024 * 1024;
/** A path for each file that the guest has in use. */
export const maxFolderBytes = 256 * 1024 * 1024;

/** A checkpoint in the making. */
export class NewImage {
  readonly folder: string;
  readonly #suffix = randomBytes(8).toString("hex");

  /** Makes the folder where there is none. What an interrupted checkpoint has left in it is removed. Throws `host`. */
  constructor(folder: string) {
    this.folder = folder;
    try {
      mkdirSync(folder, { recursive: true, mode: 0o700 });
      this.#clean();
    } catch (cause) {
      throw new HuskError("host", `cannot write a checkpoint to ${folder}`, { cause });
    }
  }

  /** A file's name in the folder. */
  name(kind: string): string {
    return `${kind}-${this.#suffix}`;
  }

  /** Makes a file of it, readable for its owner alone, and answers its descriptor. */
  create(kind: string): number {
    return openSync(join(this.folder, this.name(kind)), constants.O_RDWR | constants.O_CREAT | constants.O_EXCL, 0o600);
  }

  /** Puts the checkpoint in its place. Throws `host`. */
  publish(manifest: Manifest): void {
    const draft = join(this.folder, this.name("manifest"));
    try {
      writeFileSync(draft, `${JSON.stringify(manifest, undefined, 2)}\n`, { mode: 0o600, flag: "wx" });
      renameSync(draft, join(this.folder, manifestName));
      writeFileSync(join(this.folder, podmansProof), `a checkpoint of husk's: see ${manifestName}\n`, { mode: 0o600 });
      this.#clean();
    } catch (cause) {
      throw new HuskError("host", `cannot write the checkpoint in ${this.folder}`, { cause });
    }
  }

  /** Removes what there is of it. */
  abandon(): void {
    for (const name of readdirSync(this.folder))
      if (name.endsWith(`-${this.#suffix}`) && ownNames.test(name)) rmSync(join(this.folder, name));
  }

  /** Removes files of checkpoints that no manifest names. */
  #clean(): void {
    const kept = new Set(existingFiles(this.folder));
    for (const name of readdirSync(this.folder)) {
      const isOurs = ownNames.test(name) && !name.endsWith(`-${this.#suffix}`);
      if (isOurs && !kept.has(name)) rmSync(join(this.folder, name));
    }
  }
}

/** The files that the folder's checkpoint names; none where there is no checkpoint that can be read: then nothing of it can be restored either. */
function existingFiles(folder: string): string[] {
  try {
    const { memory, state, folder: shared, disks } = readManifest(folder);
    return [memory.file, state.file, ...(shared === undefined ? [] : [shared.file]), ...disks.flatMap(({ copy }) => copy?.file ?? [])];
  } catch {
    return [];
  }
}

/** A checkpoint that is there, and whole as far as can be told without reading all of its memory: that is checked while it is copied. */
export interface Image {
  readonly manifest: Manifest;
  readonly memory: string;
  readonly state: string;
  /** What the shared folder's server has to begin with. */
  readonly folder?: string;
}

/** Opens a checkpoint. Throws `not-found` where there is none, `invalid-argument` where it is damaged. */
export function openImage(folder: string): Image {
  const manifest = readManifest(folder);
  const memory = join(folder, manifest.memory.file);
  try {
    demandFile(memory, (bytes) => bytes === manifest.memory.packedBytes);
    const state = wholeFile(folder, manifest.state, maxStateBytes);
    const shared = manifest.folder === undefined ? {} : { folder: wholeFile(folder, manifest.folder, maxFolderBytes) };
    return { manifest, memory, state, ...shared };
  } catch (cause) {
    throw damaged(folder, cause);
  }
}

function readManifest(folder: string): Manifest {
  const path = join(folder, manifestName);
  try {
    const file = openSync(path, constants.O_RDONLY | constants.O_NOFOLLOW | constants.O_NONBLOCK);
    try {
      const stat = fstatSync(file);
      if (!stat.isFile() || stat.size > maxManifestBytes) throw new Error(`${path} is no file of at most ${maxManifestBytes} bytes`);
      return parseManifest(JSON.parse(readFileSync(file, "utf8")));
    } finally {
      closeSync(file);
    }
  } catch (cause) {
    if (hasCode(cause, "ENOENT", "ENOTDIR")) throw new HuskError("not-found", `${folder} holds no checkpoint`);
    throw damaged(folder, cause);
  }
}

function damaged(folder: string, cause: unknown): HuskError {
  return new HuskError("invalid-argument", `the checkpoint in ${folder} is damaged`, { cause });
}

function demandFile(path: string, isSize: (bytes: number) => boolean): void {
  const stat = lstatSync(path);
  if (!stat.isFile()) throw new Error(`${path} is no file`);
  if (!isSize(stat.size)) throw new Error(`${path} has ${stat.size} bytes, which cannot be`);
}

/** The path of a file that holds what it held. */
function wholeFile(folder: string, { file, sha256 }: SavedFile, maxBytes: number): string {
  const path = join(folder, file);
  demandFile(path, (bytes) => bytes <= maxBytes);
  if (createHash("sha256").update(readFileSync(path)).digest("hex") !== sha256) throw new Error(`${path} was changed`);
  return path;
}
