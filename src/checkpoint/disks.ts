/**
 * Disks in checkpoints. What the guest remembers of a disk is true of what was on it at that moment alone: over one that has changed since, the guest would
 * destroy it. So a checkpoint knows how to tell that a disk is what it was, and a restore refuses any other.
 */
import { createHash } from "node:crypto";
import { closeSync, openSync, readFileSync, readSync, statSync } from "node:fs";
import { HuskError } from "../errors.ts";
import type { SavedDisk } from "./manifest.ts";
import { sumOf } from "./pages.ts";

/** A disk of a machine, as a file or a block device of the host. */
export interface HostDisk {
  readonly serial: string;
  readonly path: string;
  readonly isDevice: boolean;
  readonly readonly: boolean;
}

/**
 * What shows that a disk has changed. Of a file: which one it is, its size, and the time of its last change, which nobody can set. A block device has none of
 * these; but whoever mounts a file system for writing writes to its beginning (ext4's superblock and group descriptors, those of xfs and btrfs).
 */
export function witnessOf({ path, isDevice }: HostDisk): string {
  return isDevice ? beginningOf(path) : identityOf(path);
}

/** How large it is. */
export function sizeOf({ path, isDevice }: HostDisk): number {
  return isDevice ? deviceSize(path) : statSync(path).size;
}

/** Refuses a disk that cannot be checkpointed while the container goes on. Throws `unsupported`. */
export function demandCopyable(disks: readonly HostDisk[]): void {
  const device = disks.find(({ isDevice, readonly }) => isDevice && !readonly);
  if (device === undefined) return;
  throw new HuskError(
    "unsupported",
    `--leave-running: the container goes on writing to the block device ${device.path}, which is not copied`,
    {
      hint: "leave the flag out, or use an image in a file",
    },
  );
}

/**
 * Throws `invalid-argument` where `disks`, those of the bundle, are not as they were: others, or changed since. A disk that the checkpoint has a copy of must
 * have the copy's content.
 */
export async function demandUnchanged(
  saved: readonly SavedDisk[],
  disks: readonly HostDisk[],
  folder: string,
  helper: string,
): Promise<void> {
  if (saved.length !== disks.length) {
    const has = (count: number): string => (count === 0 ? "a folder" : "an image or a block device");
    throw new HuskError(
      "invalid-argument",
      `root.path: the checkpointed container's root was ${has(saved.length)}, the bundle's is ${has(disks.length)}`,
    );
  }
  for (const [index, then] of saved.entries()) {
    const now = disks[index];
    if (now === undefined) continue;
    const problem = await difference(then, now, helper);
    if (problem === undefined) continue;
    const hint =
      then.copy === undefined
        ? {}
        : { hint: `\`cp --sparse=always ${folder}/${then.copy.file} ${now.path}\` makes it so, and what was written since is lost` };
    throw new HuskError("invalid-argument", `root.path: ${now.path} is not the disk as it was at the checkpoint: ${problem}`, hint);
  }
}

async function difference(then: SavedDisk, now: HostDisk, helper: string): Promise<string | undefined> {
  if (then.serial !== now.serial || then.isDevice !== now.isDevice) return "it is of another kind";
  if (then.readonly !== now.readonly) return then.readonly ? "it was read-only" : "it is read-only now";
  const bytes = sizeOf(now);
  if (bytes !== then.bytes) return `it has ${bytes} bytes, and had ${then.bytes}`;
  if (then.copy !== undefined) return (await sumOf(helper, now.path)) === then.copy.sum ? undefined : "its content is another";
  return witnessOf(now) === then.witness ? undefined : "it was changed since, or is another file";
}

function identityOf(path: string): string {
  const { dev, ino, size, mtimeNs, ctimeNs } = statSync(path, { bigint: true });
  return `${dev}:${ino} ${size} ${mtimeNs} ${ctimeNs}`;
}

const beginningBytes = 1024 * 1024;

function beginningOf(path: string): string {
  const file = openSync(path, "r");
  try {
    const bytes = Buffer.alloc(beginningBytes);
    const length = readSync(file, bytes, 0, bytes.length, 0);
    return createHash("sha256").update(bytes.subarray(0, length)).digest("hex");
  } finally {
    closeSync(file);
  }
}

/** A device's size is where its end is: stat(2) does not say it, but /sys does, in sectors of 512 bytes whatever the device's own are. */
function deviceSize(path: string): number {
  const { rdev } = statSync(path);
  const [major, minor] = [(rdev >>> 8) & 0xfff, (rdev & 0xff) | ((rdev >>> 12) & 0xfff00)];
  return Number(readFileSync(`/sys/dev/block/${major}:${minor}/size`, "utf8")) * 512;
}
