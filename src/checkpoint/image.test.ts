import { createHash } from "node:crypto";
import { closeSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, symlinkSync, writeFileSync, writeSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, expect, test } from "vitest";
import { NewImage, openImage } from "./image.ts";
import { newManifest } from "./manifest.ts";

let folder = "";
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), "husk-image-"));
});
afterEach(() => rmSync(folder, { recursive: true }));

/** Makes a whole checkpoint whose memory is `memory`. */
function make(memory: string): NewImage {
  const image = new NewImage(folder);
  write(image, memory);
  image.publish(
    newManifest({
      husk: "1",
      qemu: "1",
      accelerator: "tcg",
      processor: "",
      vcpus: 1,
      limits: { vcpus: 4, memoryBytes: 2 ** 33 },
      networkPorts: 0,
      devicePorts: 0,
      arguments: [],
      nonce: "0".repeat(32),
      links: [],
      disks: [],
      container: { id: "c", guestId: "c", terminal: false, paused: false, spec: "{}" },
      memory: { file: image.name("memory"), bytes: 1024 * 1024, packedBytes: memory.length, sum: "00000000" },
      state: { file: image.name("state"), sha256: createHash("sha256").update("state").digest("hex") },
    }),
  );
  return image;
}

function write(image: NewImage, memory: string): void {
  for (const [kind, text] of [
    ["memory", memory],
    ["state", "state"],
  ] as const) {
    const file = image.create(kind);
    writeSync(file, text);
    closeSync(file);
  }
}

function kinds(): string[] {
  return readdirSync(folder)
    .map((name) => name.replace(/-[0-9a-f]{16}$/, ""))
    .toSorted();
}

test("a checkpoint is there once it is published, and not before", () => {
  const image = new NewImage(folder);
  write(image, "half");
  expect(() => openImage(folder)).toThrow(expect.objectContaining({ code: "not-found", message: `${folder} holds no checkpoint` }));
  make("memory");
  const opened = openImage(folder);
  expect([readFileSync(opened.memory, "utf8"), readFileSync(opened.state, "utf8")]).toEqual(["memory", "state"]);
});

test("a new one takes the old one's place, what was interrupted goes, and what is somebody else's stays", () => {
  writeFileSync(join(folder, "notes.txt"), "");
  make("first");
  write(new NewImage(folder), "interrupted");
  expect(readFileSync(openImage(folder).memory, "utf8")).toBe("first");
  make("second");
  expect(readFileSync(openImage(folder).memory, "utf8")).toBe("second");
  expect(kinds()).toEqual(["checkpoint.json", "inventory.img", "memory", "notes.txt", "state"]);
});

test("one that is given up leaves the old one", () => {
  make("first");
  const image = new NewImage(folder);
  write(image, "second");
  image.abandon();
  expect(readFileSync(openImage(folder).memory, "utf8")).toBe("first");
  expect(kinds()).toEqual(["checkpoint.json", "inventory.img", "memory", "state"]);
});

test("a folder that is not there is made, and one that cannot be is an error", () => {
  const inner = join(folder, "a/b");
  expect(new NewImage(inner).folder).toBe(inner);
  writeFileSync(join(folder, "file"), "");
  expect(() => new NewImage(join(folder, "file"))).toThrow(
    expect.objectContaining({ code: "host", message: `cannot write a checkpoint to ${folder}/file` }),
  );
});

test.each<[string, () => void, RegExp]>([
  ["no JSON", () => writeFileSync(join(folder, "checkpoint.json"), "{"), /JSON/],
  ["no file", () => directoryInPlace(), /is no file of at most/],
  ["a memory that is cut off", () => writeFileSync(openImage(folder).memory, "x"), /memory-\w+ has 1 bytes, which cannot be/],
  ["another state", () => writeFileSync(openImage(folder).state, "etats"), /state-\w+ was changed/],
  ["no state", () => rmSync(openImage(folder).state), /ENOENT/],
  ["a link in the memory's place", () => linkInPlace(), /memory-\w+ is no file/],
])("one with %s is damaged", (_, damage, why) => {
  make("memory");
  damage();
  const error = thrownBy(() => openImage(folder));
  expect(error).toMatchObject({ code: "invalid-argument", message: `the checkpoint in ${folder} is damaged` });
  expect(String((error as Error).cause)).toMatch(why);
});

function linkInPlace(): void {
  const { memory } = openImage(folder);
  rmSync(memory);
  symlinkSync("/etc/passwd", memory);
}

function directoryInPlace(): void {
  rmSync(join(folder, "checkpoint.json"));
  mkdirSync(join(folder, "checkpoint.json"));
}

function thrownBy(work: () => void): unknown {
  try {
    work();
  } catch (error) {
    return error;
  }
  return undefined;
}
