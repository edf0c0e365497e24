import { mkdtempSync, rmSync, utimesSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, expect, test } from "vitest";
import { demandCopyable, demandUnchanged, type HostDisk, sizeOf, witnessOf } from "./disks.ts";

let folder = "";
let disk: HostDisk = { serial: "root", path: "", isDevice: false, readonly: false };
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), "husk-disks-"));
  disk = { ...disk, path: join(folder, "disk") };
  writeFileSync(disk.path, "content");
});
afterEach(() => rmSync(folder, { recursive: true }));

function saved() {
  const { serial, readonly, isDevice } = disk;
  return { serial, readonly, isDevice, bytes: sizeOf(disk), witness: witnessOf(disk) };
}

const refused = (problem: string) => ({
  code: "invalid-argument",
  message: `root.path: ${disk.path} is not the disk as it was at the checkpoint: ${problem}`,
});

test("a disk that nobody touched is what it was", async () => {
  await expect(demandUnchanged([saved()], [disk], folder, "/helper")).resolves.toBeUndefined();
});

test("one that was written to is refused, also with its size and its time of change as they were", async () => {
  const before = saved();
  utimesSync(disk.path, 1, 1);
  const dated = saved();
  writeFileSync(disk.path, "tnetnoc");
  utimesSync(disk.path, 1, 1);
  await expect(demandUnchanged([dated], [disk], folder, "/helper")).rejects.toMatchObject(
    refused("it was changed since, or is another file"),
  );
  writeFileSync(disk.path, "longer content");
  await expect(demandUnchanged([before], [disk], folder, "/helper")).rejects.toMatchObject(refused("it has 14 bytes, and had 7"));
});

test("one that can be written to now, or no more, is refused", async () => {
  await expect(demandUnchanged([{ ...saved(), readonly: true }], [disk], folder, "/helper")).rejects.toMatchObject(
    refused("it was read-only"),
  );
  const now = { ...disk, readonly: true };
  await expect(demandUnchanged([saved()], [now], folder, "/helper")).rejects.toMatchObject(refused("it is read-only now"));
});

test("a folder in a disk's place is refused, and the other way round", async () => {
  await expect(demandUnchanged([saved()], [], folder, "/helper")).rejects.toThrow(
    "root.path: the checkpointed container's root was an image or a block device, the bundle's is a folder",
  );
  await expect(demandUnchanged([], [disk], folder, "/helper")).rejects.toThrow(
    "root was a folder, the bundle's is an image or a block device",
  );
});

test("only a device that is written to cannot be copied", () => {
  const device = { ...disk, isDevice: true };
  expect(() => demandCopyable([disk, { ...device, readonly: true }])).not.toThrow();
  expect(() => demandCopyable([disk, device])).toThrow(
    expect.objectContaining({
      code: "unsupported",
      message: `--leave-running: the container goes on writing to the block device ${disk.path}, which is not copied`,
    }),
  );
});
