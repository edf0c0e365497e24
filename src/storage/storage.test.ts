import { mkdirSync, mkdtempSync, rmSync, symlinkSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, expect, test } from "vitest";
import { guestPath, planBind, planRoot } from "./container-storage.ts";
import { findRootFilesystem } from "./root-filesystem.ts";

let folder: string;
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), "husk-storage-"));
});
afterEach(() => rmSync(folder, { recursive: true }));

/** A file that begins as an image of that kind does. */
function image(offset: number, bytes: string | Buffer): string {
  const content = Buffer.alloc(0x11000);
  content.set(Buffer.from(bytes), offset);
  const path = join(folder, "image");
  writeFileSync(path, content);
  return path;
}

test("a folder is a folder", () => {
  expect(findRootFilesystem(folder)).toEqual({ kind: "folder", path: folder });
});

test.each([
  ["ext4", 0x438, Buffer.from([0x53, 0xef])],
  ["erofs", 1024, Buffer.from([0xe2, 0xe1, 0xf5, 0xe0])],
  ["squashfs", 0, "hsqs"],
  ["xfs", 0, "XFSB"],
  ["btrfs", 0x10040, "_BHRfS_M"],
] as const)("an image of %s is known by its first bytes", (fstype, offset, bytes) => {
  const path = image(offset, bytes);
  expect(findRootFilesystem(path)).toEqual({ kind: "image", path, isDevice: false, fstype });
});

test("a file without a file system is refused by name", () => {
  const path = image(0, "nothing");
  expect(() => findRootFilesystem(path)).toThrow(
    `root.path: ${path} holds no file system that the guest can mount (ext4, erofs, squashfs, xfs, btrfs)`,
  );
});

test("a root that is not there is refused by name", () => {
  expect(() => findRootFilesystem("/no/such")).toThrow("root.path: /no/such cannot be read");
});

test("a character device is no root", () => {
  expect(() => findRootFilesystem("/dev/null")).toThrow("root.path: /dev/null is neither a folder, nor a block device, nor an image file");
});

test("a read-only root is read-only on the host already", () => {
  const { shown } = planRoot("c", { kind: "folder", path: "/r" }, true, []);
  expect(shown).toEqual([{ source: "/r", target: "c/rootfs", readonly: true }]);
});

test("a read-only root that lacks a mount point gets a layer in which it is made; links are not followed", () => {
  mkdirSync(join(folder, "a/b"), { recursive: true });
  symlinkSync("a", join(folder, "link"));
  const covered = (readonly: boolean, ...paths: string[]) => planRoot("c", findRootFilesystem(folder), readonly, paths).storage.overlay;
  expect([covered(true, "/a", "/a/b", "/"), covered(true, "/a/c"), covered(true, "/link/b"), covered(false, "/a/c")]).toEqual([
    false,
    true,
    true,
    false,
  ]);
});

test("an image that can be written is, unless the root is read-only", () => {
  const root = { kind: "image", path: "/r.ext4", isDevice: false, fstype: "ext4" } as const;
  expect(planRoot("c", root, false, [])).toMatchObject({ disks: [{ readonly: false }], storage: { options: ["rw"], overlay: false } });
  expect(planRoot("c", root, true, [])).toMatchObject({ disks: [{ readonly: true }], storage: { options: ["ro"], overlay: true } });
});

test("an image that cannot be written gets a layer for a container that may", () => {
  const root = { kind: "image", path: "/r.erofs", isDevice: false, fstype: "erofs" } as const;
  expect(planRoot("c", root, false, [])).toMatchObject({ disks: [{ readonly: true }], storage: { options: ["ro"], overlay: true } });
});

test("the guest finds a bind's source below the share", () => {
  expect(guestPath(planBind("c", { index: 3, hostPath: "/data", readonly: false }))).toBe("/run/husk/shared/c/mount3");
});
