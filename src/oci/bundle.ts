/**
 * The one file of this folder that touches the disk: it reads a bundle's config.json, and looks at what its root file system and the
 * sources of its bind mounts are.
 */
import { constants, statSync } from "node:fs";
import { open, readFile, realpath, stat, statfs } from "node:fs/promises";
import path from "node:path";
import { HuskError } from "../errors.ts";
import { asksForSharing, bindSource, isBind, leavesWritableBelow } from "./mounts.ts";
import { hasMountsBelow, isSharedMount, mountOptions } from "./propagation.ts";
import type { DeviceNumber, Source, Sources } from "./sources.ts";
import type { Mount, Process, Spec } from "./types.ts";
import { type Parsed, parseProcess, parseSpec } from "./validate.ts";

/** Bound of a config.json: Docker's largest are some 60 KiB. */
const MAX_CONFIG_BYTES = 4 * 1024 * 1024;

const TMPFS_MAGIC = 0x01021994;

export interface Bundle {
  /** Absolute. */
  readonly path: string;
  readonly spec: Spec;
  /** Absolute: root.path, taken from the bundle. Not looked at yet: see `checkRootfs`. */
  readonly rootfs: string;
  /** Properties of config.json that the specification does not have. */
  readonly unknown: readonly string[];
}

/** Reads and validates a bundle. Throws "invalid-argument" with the field, or the line and column, that is wrong. */
export async function loadBundle(folder: string): Promise<Bundle> {
  const bundle = path.resolve(folder);
  const { value: spec, unknown } = parseSpec(await readConfig(bundle));
  return { path: bundle, spec, rootfs: path.resolve(bundle, spec.root.path), unknown };
}

/** Refuses a bundle whose root file system is not there or is no folder. Not for one that somebody mounts later, as containerd's shim does. */
export async function checkRootfs(bundle: Bundle): Promise<void> {
  const about = `config.json: root.path: ${bundle.rootfs}`;
  const found = await stat(bundle.rootfs).catch((cause: unknown) => {
    if (isMissing(cause)) throw new HuskError("invalid-argument", `${about} does not exist`);
    throw new HuskError("invalid-argument", `${about} cannot be looked at`, { cause });
  });
  if (!found.isDirectory()) throw new HuskError("invalid-argument", `${about} is not a folder`);
}

/** Looks at the sources of the bind mounts. */
export async function inspectSources(spec: Spec, bundle: string): Promise<Sources> {
  const binds = (spec.mounts ?? []).map((mount, index) => ({ mount, index })).filter(({ mount }) => isBind(mount));
  const mountinfo = binds.length === 0 ? "" : await readFile("/proc/self/mountinfo", "utf8");
  const found = await Promise.all(
    binds.map(async ({ mount, index }) => {
      return [index, withMounts(mount, await inspect(bindSource(mount, bundle)), mountinfo)] as const;
    }),
  );
  return new Map(found);
}

/** The source with what is asked of the host's mounts there. */
function withMounts(mount: Mount, source: Source, mountinfo: string): Source {
  if (source.kind !== "folder" && source.kind !== "file") return source;
  const { realPath } = source;
  const options = mountOptions(mountinfo, realPath);
  const [sharing, below] = [asksForSharing(mount), source.kind === "folder" && (leavesWritableBelow(mount) || options.includes("ro"))];
  return {
    ...source,
    mountOptions: options,
    ...(sharing && { shared: isSharedMount(mountinfo, realPath) }),
    ...(below && { mountsBelow: hasMountsBelow(mountinfo, realPath) }),
  };
}

/** Whether a path leads to the network namespace of this process or of the host's PID 1, which not everybody may look at. */
export function isHostNetwork(path: string): boolean {
  const found = namespaceAt(path);
  return found !== undefined && ["self", "1"].some((process) => namespaceAt(`/proc/${process}/ns/net`) === found);
}

/** What tells a namespace apart; undefined where there is none, or it may not be looked at. */
export function namespaceAt(path: string): string | undefined {
  try {
    const { dev, ino } = statSync(path);
    return `${dev}:${ino}`;
  } catch {
    return undefined; // whoever enters it will be told why that fails
  }
}

/** Reads and validates the file of `exec --process`. */
export async function loadProcess(file: string): Promise<Parsed<Process>> {
  try {
    return parseProcess(await readText(file), file);
  } catch (cause) {
    if (isMissing(cause)) throw new HuskError("invalid-argument", `${file} does not exist`);
    throw cause;
  }
}

async function readConfig(bundle: string): Promise<string> {
  const file = path.join(bundle, "config.json");
  try {
    return await readText(file);
  } catch (cause) {
    if (!isMissing(cause)) throw cause;
    await stat(bundle).catch(() => {
      throw new HuskError("invalid-argument", `bundle ${bundle} does not exist`);
    });
    throw new HuskError("invalid-argument", `bundle ${bundle} has no config.json`, { hint: "make one with `husk spec`" });
  }
}

/** The whole of a small text file. Lets ENOENT through, for the caller to say what is missing. */
async function readText(file: string): Promise<string> {
  try {
    // Without O_NONBLOCK, a FIFO of this name would hold us for ever.
    await using handle = await open(file, constants.O_RDONLY | constants.O_NONBLOCK);
    const found = await handle.stat();
    // A pipe of the caller's own, whose writer it has started: waited for, which a FIFO by a name of its own is not.
    if (found.isFIFO() && /^\/proc\/\d+\/fd\/\d+$/.test(file)) return await readFile(file, "utf8");
    if (!found.isFile()) throw new HuskError("invalid-argument", `${file} is not a regular file`);
    if (found.size > MAX_CONFIG_BYTES) throw tooLarge(file);
    // One byte more than it had, so that a file which grows meanwhile is not cut off unnoticed.
    const buffer = Buffer.alloc(found.size + 1);
    let length = 0;
    for (;;) {
      const { bytesRead } = await handle.read(buffer, length, buffer.length - length);
      length += bytesRead;
      if (bytesRead === 0) break;
      if (length === buffer.length) throw new HuskError("invalid-argument", `${file} is being written`);
    }
    return new TextDecoder("utf-8", { fatal: true }).decode(buffer.subarray(0, length));
  } catch (cause) {
    if (cause instanceof HuskError || isMissing(cause)) throw cause;
    if (cause instanceof TypeError) throw new HuskError("invalid-argument", `${file} is not UTF-8`);
    throw new HuskError("invalid-argument", `cannot read ${file}`, { cause });
  }
}

async function inspect(file: string): Promise<Source> {
  try {
    const [found, realPath] = await Promise.all([stat(file), realpath(file)]);
    if (found.isFile()) return { kind: "file", realPath };
    if (found.isSocket()) return { kind: "socket", realPath };
    if (found.isFIFO()) return { kind: "fifo", realPath };
    if (found.isCharacterDevice()) return { kind: "character-device", realPath, ...deviceNumber(found.rdev) };
    if (found.isBlockDevice()) return { kind: "block-device", realPath, ...deviceNumber(found.rdev) };
    const { type, blocks, bsize } = await statfs(file);
    return type === TMPFS_MAGIC ? { kind: "folder", realPath, tmpfsBytes: blocks * bsize } : { kind: "folder", realPath };
  } catch (cause) {
    if (isMissing(cause)) return { kind: "missing" };
    return { kind: "unreadable", reason: cause instanceof Error ? cause.message : String(cause) };
  }
}

/** glibc's encoding of a device number. */
function deviceNumber(rdev: number): DeviceNumber {
  const wide = BigInt(rdev);
  const major = ((wide >> 8n) & 0xfffn) | ((wide >> 32n) & 0xfffff000n);
  const minor = (wide & 0xffn) | ((wide >> 12n) & 0xffffff00n);
  return { major: Number(major), minor: Number(minor) };
}

function isMissing(error: unknown): boolean {
  return error instanceof Error && "code" in error && (error.code === "ENOENT" || error.code === "ENOTDIR");
}

function tooLarge(file: string): HuskError {
  return new HuskError("invalid-argument", `${file} is larger than ${MAX_CONFIG_BYTES / 1024 / 1024} MiB`);
}
