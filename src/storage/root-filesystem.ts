/**
 * The root file system of a container: a folder of the host, which the guest sees through virtio-fs, or an image (a block device or a file
 * with a file system in it), which the guest mounts itself from a virtio-blk disk.
 */
import { closeSync, lstatSync, openSync, readSync, statSync } from "node:fs";
import { join } from "node:path";
import { HuskError } from "../errors.ts";

export type RootFilesystem =
  | { readonly kind: "folder"; readonly path: string }
  | { readonly kind: "image"; readonly path: string; readonly isDevice: boolean; readonly fstype: string };

/** What a file system begins with: the bytes at an offset (the kernel's include/uapi/linux/magic.h, and each file system's own header). */
const signatures: readonly { readonly fstype: string; readonly offset: number; readonly bytes: Buffer }[] = [
  { fstype: "ext4", offset: 0x438, bytes: Buffer.from([0x53, 0xef]) },
  { fstype: "erofs", offset: 1024, bytes: Buffer.from([0xe2, 0xe1, 0xf5, 0xe0]) },
  { fstype: "squashfs", offset: 0, bytes: Buffer.from("hsqs") },
  { fstype: "xfs", offset: 0, bytes: Buffer.from("XFSB") },
  { fstype: "btrfs", offset: 0x10040, bytes: Buffer.from("_BHRfS_M") },
];

/** File systems that cannot be written: a container that may write gets a tmpfs over them. */
export const readonlyFilesystems: ReadonlySet<string> = new Set(["erofs", "squashfs"]);

/** Looks at what `path` (absolute) is. Throws `invalid-argument` where it is nothing that can be a root file system. */
export function findRootFilesystem(path: string): RootFilesystem {
  let stat: ReturnType<typeof statSync>;
  try {
    stat = statSync(path);
  } catch (cause) {
    throw new HuskError("invalid-argument", `root.path: ${path} cannot be read`, { cause });
  }
  if (stat.isDirectory()) return { kind: "folder", path };
  if (!stat.isFile() && !stat.isBlockDevice()) {
    throw new HuskError("invalid-argument", `root.path: ${path} is neither a folder, nor a block device, nor an image file`);
  }
  const fstype = probeFilesystem(path);
  if (fstype === undefined) {
    const known = signatures.map((signature) => signature.fstype).join(", ");
    throw new HuskError("invalid-argument", `root.path: ${path} holds no file system that the guest can mount (${known})`);
  }
  return { kind: "image", path, isDevice: stat.isBlockDevice(), fstype };
}

/**
 * Whether a root file system may lack one of the folders or files that a container's set-up mounts on, so that it would have to be written to. An image is not
 * looked into, and a symbolic link on the way is not followed: both count as lacking. `paths`: absolute, in the container.
 */
export function mayLack(root: RootFilesystem, paths: readonly string[]): boolean {
  if (root.kind === "image") return true;
  return paths.some((path) => {
    const steps = path.split("/").filter(Boolean);
    return steps.some((_, index) => {
      const found = lstatSync(join(root.path, ...steps.slice(0, index + 1)), { throwIfNoEntry: false });
      return found === undefined || found.isSymbolicLink();
    });
  });
}

function probeFilesystem(path: string): string | undefined {
  const fd = openSync(path, "r");
  try {
    return signatures.find(({ offset, bytes }) => {
      const found = Buffer.alloc(bytes.length);
      return readSync(fd, found, 0, bytes.length, offset) === bytes.length && found.equals(bytes);
    })?.fstype;
  } finally {
    closeSync(fd);
  }
}
