import { expect, test } from "vitest";
import { describeProcessor, type ShapeSources, type TemplateShape, templateKey } from "./shape.ts";

const shape: TemplateShape = {
  programs: { helper: "/opt/helper", qemu: "/usr/bin/qemu", virtiofsd: "/opt/virtiofsd", virtiofsdKind: "rust" },
  image: { flavour: "own", kernel: "/guest/kernel", initramfs: "/guest/initramfs" },
  accelerator: "tcg",
  vcpus: 1,
  memoryBytes: 256 * 1024 * 1024,
  limits: { vcpus: 1, memoryBytes: 256 * 1024 * 1024 },
  translationBufferBytes: 64 * 1024 * 1024,
  networkPorts: 4,
  kernelParameters: [],
  tenant: "",
};
const sources: ShapeSources = { identity: (path) => `${path} 1`, processor: () => "model name: A" };
const key = templateKey(shape, sources);

test("the same shape has the same key, a file's name", () => {
  expect(templateKey({ ...shape }, sources)).toBe(key);
  expect(key).toMatch(/^[0-9a-f]{32}$/);
});

test.each<[string, Partial<TemplateShape>]>([
  ["another accelerator", { accelerator: "kvm" }],
  ["more processors", { vcpus: 2 }],
  ["more memory", { memoryBytes: 512 * 1024 * 1024 }],
  ["room for more processors", { limits: { ...shape.limits, vcpus: 2 } }],
  ["room for more memory", { limits: { ...shape.limits, memoryBytes: 512 * 1024 * 1024 } }],
  ["another number of network ports", { networkPorts: 5 }],
  ["another word for the kernel", { kernelParameters: ["quiet=0"] }],
  ["a tenant's own", { tenant: "name:acme" }],
  ["another QEMU", { programs: { ...shape.programs, qemu: "/opt/qemu" } }],
  ["another kernel", { image: { ...shape.image, kernel: "/guest/other" } }],
  ["another initramfs", { image: { ...shape.image, initramfs: "/guest/other" } }],
])("%s is another template's", (_, change) => {
  expect(templateKey({ ...shape, ...change }, sources)).not.toBe(key);
});

test("each tenant's is another template", () => {
  const keys = ["", "name:acme", "name:acme2", "kubernetes:acme"].map((tenant) => templateKey({ ...shape, tenant }, sources));
  expect(new Set(keys).size).toBe(keys.length);
});

test("a file that was replaced at the same path makes another template", () => {
  for (const replaced of ["/usr/bin/qemu", "/guest/kernel", "/guest/initramfs"]) {
    const identity = (path: string): string => (path === replaced ? `${path} 2` : `${path} 1`);
    expect(templateKey(shape, { ...sources, identity })).not.toBe(key);
  }
});

test("another processor makes another template, the helper's place does not", () => {
  expect(templateKey(shape, { ...sources, processor: () => "model name: B" })).not.toBe(key);
  expect(templateKey({ ...shape, programs: { ...shape.programs, helper: "/elsewhere" } }, sources)).toBe(key);
});

test("of the processor, the model and the flags count, and what changes by the second does not", () => {
  const cpuinfo = (mhz: number, flags: string): string =>
    `processor\t: 0\nmodel name\t: X  1\ncpu MHz\t\t: ${mhz}\nflags\t\t: ${flags}\n\nprocessor\t: 1\nflags\t\t: other\n`;
  expect(describeProcessor(cpuinfo(1000, "fpu sse"))).toBe("model name : X 1\nflags : fpu sse");
  expect(describeProcessor(cpuinfo(2000, "fpu sse"))).toBe(describeProcessor(cpuinfo(1000, "fpu sse")));
});
