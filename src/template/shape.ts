/** All that shapes a template's guest, and the key that stands for it: a template fits a sandbox whose key is the same. */
import { createHash } from "node:crypto";
import { readFileSync, statSync } from "node:fs";
import type { Accelerator, GuestImage, Machine, MachineSize } from "../vmm/machine.ts";
import { qemuArguments } from "../vmm/qemu/command-line.ts";
import { type SharePrograms, share } from "./share.ts";
import { everybody } from "./tenant.ts";

/** What of a sandbox its template has as well. */
export interface TemplateShape {
  readonly programs: SharePrograms & { readonly helper: string; readonly qemu: string };
  readonly image: GuestImage;
  readonly accelerator: Accelerator;
  readonly vcpus: number;
  readonly memoryBytes: number;
  /** How far a clone can grow: what for has to be in the template. */
  readonly limits: MachineSize;
  readonly translationBufferBytes: number;
  readonly networkPorts: number;
  readonly kernelParameters: readonly string[];
  /** Whose it is: as `tenantOf` answers. */
  readonly tenant: string;
}

/** Goes up whenever a template of an older husk could not be restored by this one, or would hold another guest. */
const formatVersion = 5;

/** For a clone's devices: the shared folder, and the root file system of each of a few containers. */
export const devicePorts = 4;

/** The machine of the template, apart from where it begins and which descriptors it has. */
export function templateMachine(
  shape: TemplateShape,
  own: Pick<Machine, "origin" | "memory" | "channel" | "controlDescriptor" | "consoleDescriptor">,
): Machine {
  const { accelerator, vcpus, limits, translationBufferBytes, networkPorts, kernelParameters } = shape;
  return { accelerator, vcpus, limits, translationBufferBytes, networkPorts, kernelParameters, devicePorts, disks: [], ...own };
}

/** What the host has to say about a file and about its processor; in a test, something else. */
export interface ShapeSources {
  /** Tells a file apart from every other, and from what it was before it changed. */
  readonly identity: (path: string) => string;
  readonly processor: () => string;
}

const hostSources: ShapeSources = {
  identity: (path) => {
    const { dev, ino, size, mtimeNs } = statSync(path, { bigint: true });
    return `${path} ${dev}:${ino} ${size} ${mtimeNs}`;
  },
  processor: () => describeProcessor(readFileSync("/proc/cpuinfo", "utf8")),
};

/**
 * The key: 32 hexadecimal digits. QEMU, the kernel and the initramfs count by the identity of their files, so that a package's update makes another key
 * without their being read; the rest by QEMU's command line, which says all of it.
 */
export function templateKey(shape: TemplateShape, sources: ShapeSources = hostSources): string {
  const { image, programs, memoryBytes } = shape;
  const machine = templateMachine(shape, {
    origin: { kind: "boot", parks: true, image: { ...image, kernel: "kernel", initramfs: "initramfs" } },
    memory: { kind: "own", bytes: memoryBytes, descriptor: 0, folders: [share] },
    channel: { kind: "serial", descriptor: 0 },
    controlDescriptor: 0,
    consoleDescriptor: 0,
  });
  const parts = [
    formatVersion,
    ...[programs.qemu, image.kernel, image.initramfs].map((path) => sources.identity(path)),
    sources.processor(),
    // As long as nobody is named, the keys are those of a husk that knows no tenants.
    ...(shape.tenant === everybody ? [] : [`tenant ${shape.tenant}`]),
    ...qemuArguments(machine),
  ];
  return createHash("sha256").update(JSON.stringify(parts)).digest("hex").slice(0, 32);
}

/** What the guest can tell of the host's processor, in a few letters; "" where its own is emulated. */
export function processorDigest(accelerator: Accelerator): string {
  return accelerator === "tcg" ? "" : createHash("sha256").update(hostSources.processor()).digest("hex").slice(0, 32);
}

/** What of /proc/cpuinfo a guest can tell: the first processor's model and flags. Frequencies and the like change by the second. */
export function describeProcessor(cpuinfo: string): string {
  const [first = ""] = cpuinfo.split("\n\n");
  return first
    .split("\n")
    .filter((line) => /^(vendor_id|cpu family|model|model name|stepping|microcode|flags)\s*:/.test(line))
    .map((line) => line.replace(/\s+/g, " "))
    .join("\n");
}
