import { expect, test } from "vitest";
import { demandSameMachine, demandSameQemu, type Manifest, newManifest, parseManifest } from "./manifest.ts";

const content: Omit<Manifest, "format" | "version" | "createdAt"> = {
  husk: "0.1.0",
  qemu: "7.2.22 (Debian)",
  accelerator: "tcg",
  processor: "",
  vcpus: 1,
  limits: { vcpus: 4, memoryBytes: 2 ** 33 },
  networkPorts: 4,
  devicePorts: 4,
  arguments: ["-name", "husk"],
  nonce: "0123456789abcdef".repeat(2),
  links: [{ index: 0, name: "eth0", mac: "02:42:ac:11:00:02" }],
  disks: [{ serial: "root", readonly: false, isDevice: false, bytes: 4096, witness: "1:2 3 4 5" }],
  container: { id: "box", guestId: "box", terminal: false, paused: false, spec: "{}" },
  memory: { file: "memory-0123456789abcdef", bytes: 256 * 1024 * 1024, packedBytes: 100, sum: "0a0b0c0d" },
  state: { file: "state-0123456789abcdef", sha256: "0".repeat(64) },
};
const manifest = newManifest(content);

/** What is written and read again, with a change. */
function changed(change: (document: Parts) => void): unknown {
  const document = JSON.parse(JSON.stringify(manifest)) as Parts;
  change(document);
  return document;
}

test("a manifest is read as it was written", () => {
  expect(parseManifest(JSON.parse(JSON.stringify(manifest)))).toEqual(manifest);
});

/** What the changes below reach into: parts of the document as it is written. */
type Parts = Record<string, unknown> & {
  links: [Record<string, unknown>];
  disks: [Record<string, unknown>];
  container: Record<string, unknown>;
  memory: Record<string, unknown>;
  state: Record<string, unknown>;
};

test.each<[string, (document: Parts) => void]>([
  ['format: expected "husk-checkpoint", got "criu"', (document) => void (document["format"] = "criu")],
  ["version: expected 4, got 3", (document) => void (document["version"] = 3)],
  ["husk: expected a string, got nothing", (document) => delete document["husk"]],
  ["vcpus: expected a whole number from 1 to 1024, got 1.5", (document) => void (document["vcpus"] = 1.5)],
  ['accelerator: expected one of "kvm", "tcg", got "hvf"', (document) => void (document["accelerator"] = "hvf")],
  ["arguments: expected a list, got an object", (document) => void (document["arguments"] = {})],
  ["nonce: expected 32 hexadecimal digits", (document) => void (document["nonce"] = `${"0".repeat(32)}\nhusk-dial`)],
  ["links[0].mac: expected a MAC address", (document) => void (document.links[0].mac = "02:42,romfile=/etc/passwd")],
  ["links[0].index: expected a whole number from 0 to 63, got 64", (document) => void (document.links[0].index = 64)],
  ["disks[0].bytes: expected a whole number of at least 0, got -1", (document) => void (document.disks[0].bytes = -1)],
  [
    "disks[0].copy.file: expected the name of a checkpoint's file",
    (document) => void (document.disks[0].copy = { file: "/etc/shadow", sum: "00000000" }),
  ],
  ["container.guestId: expected a container's id", (document) => void (document.container.guestId = "../x")],
  ["memory.file: expected the name of a checkpoint's file", (document) => void (document.memory.file = "../memory-0123456789abcdef")],
  ["memory.bytes: expected a number of mebibytes", (document) => void (document.memory.bytes = 1024 * 1024 + 1)],
  ["memory.sum: expected 8 hexadecimal digits", (document) => void (document.memory.sum = "--from 3")],
  ["state.sha256: expected 64 hexadecimal digits", (document) => void (document.state.sha256 = "0")],
])("one that is not as it must be is refused by its field: %s", (message, change) => {
  expect(() => parseManifest(changed(change))).toThrow(expect.objectContaining({ message }));
});

test("what is no object is no manifest", () => {
  for (const value of [null, [], "x", 1]) expect(() => parseManifest(value)).toThrow("expected an object");
});

const here = { husk: "0.1.0", accelerator: "tcg", processor: "", arguments: ["-name", "husk"] } as const;

test("the same husk makes the same machine", () => {
  expect(() => demandSameMachine(manifest, here)).not.toThrow();
  expect(() => demandSameQemu(manifest.qemu, "7.2.22 (Debian)")).not.toThrow();
});

test.each([
  ["another husk: 0.1.0, and not 0.2.0", { ...here, husk: "0.2.0" }],
  ["another processor emulation: tcg, and not kvm", { ...here, accelerator: "kvm" as const }],
  ["another kind of processor: , and not abc", { ...here, processor: "abc" }],
  ["another machine: husk, and not other", { ...here, arguments: ["-name", "other"] }],
  ["another machine: nothing, and not -S", { ...here, arguments: ["-name", "husk", "-S"] }],
  ["another machine: husk, and not nothing", { ...here, arguments: ["-name"] }],
])("the checkpoint was made with %s", (words, other) => {
  expect(() => demandSameMachine(manifest, other)).toThrow(
    expect.objectContaining({ code: "unsupported", message: `the checkpoint was made with ${words}` }),
  );
});

test("what a hostile manifest says is one short line", () => {
  const saved = { ...manifest, husk: `\x1b[2J\n${"x".repeat(1000)}` };
  expect(() => demandSameMachine(saved, here)).toThrow(
    /^the checkpoint was made with another husk: \\u001b\[2J\\nx{1,200}\.\.\., and not 0\.1\.0$/,
  );
});

test("another QEMU is told by its own words", () => {
  expect(() => demandSameQemu(manifest.qemu, "10.0.2")).toThrow(
    "the checkpoint was made with another QEMU: 7.2.22 (Debian), and not 10.0.2",
  );
});
