/** From a bundle and the configuration to a virtual machine: its programs, its image, how it runs, how large it is. */
import { createHash } from "node:crypto";
import { accessSync, closeSync, openSync, readFileSync } from "node:fs";
import { dirname } from "node:path";
import type { Image } from "../checkpoint/image.ts";
import type { Config } from "../config/config.ts";
import type { CgroupLimits } from "../host/cgroups.ts";
import { helperPath, installationFolder } from "../host/installation.ts";
import { type SizeDefaults, type VmSize, vmSize } from "../oci/resources.ts";
import type { Spec } from "../oci/types.ts";
import type { ShownPath } from "../storage/container-storage.ts";
import { templateKey } from "../template/shape.ts";
import { type Template, TemplateStore } from "../template/store.ts";
import { obtainTemplate, templateFolder } from "../template/template.ts";
import { everybody, tenantOf } from "../template/tenant.ts";
import { findZygote } from "../template/zygote.ts";
import { type AcceleratorChoice, chooseAccelerator, probeAccelerator } from "../vmm/accelerator.ts";
import { clockParameters } from "../vmm/clock-rate.ts";
import { findGuestImage, findQemu, findVirtiofsd, guestImageFolders } from "../vmm/host-programs.ts";
import type { GuestImage, MachineSize } from "../vmm/machine.ts";
import { identifyVirtiofsd } from "../vmm/virtiofsd.ts";
import { memoryStepBytes } from "./live-size.ts";
import type { SandboxSpec } from "./sandbox-plan.ts";
import { sizeDefaults } from "./size-defaults.ts";

/** What is the machine's own, and not of the containers in it. */
export type VmSpec = Omit<
  SandboxSpec,
  "id" | "hostname" | "netns" | "cgroups" | "shares" | "mounts" | "disks" | "remains" | "agentSocket" | "consoleLog"
>;

/** What the guest itself is called where no container has its name. */
export const guestHostname = "husk";

export interface VmPlan {
  readonly vm: VmSpec;
  readonly accelerator: AcceleratorChoice;
  /** What the sandbox's cgroup on the host may take. */
  readonly cgroupLimits: CgroupLimits;
  readonly sizing: SizeDefaults;
  /** Whether its template was made for it. */
  readonly madeTemplate: boolean;
  /** What the host shows of the bundle's, where the guest knows that by other names than the bundle's plan has. */
  readonly shown?: readonly ShownPath[];
  /** What is worth a line in the log: a template that was made, or why there is none. */
  readonly notes: readonly string[];
}

/** What a bundle and the configuration ask of a machine, before it is known where that comes from. */
export interface VmRequest {
  readonly size: VmSize;
  /** What sizes follow where limits do not say. */
  readonly sizing: SizeDefaults;
  readonly accelerator: AcceleratorChoice;
  readonly shape: Omit<VmSpec, "channel" | "template" | "deadlines">;
  /** Whether a template may be used. */
  readonly mayClone: boolean;
}

/** `engineNamespace`: where the engine has some, the sandbox's. Throws `host` where a program, an image or KVM is wanted and missing. */
export async function describeVm(spec: Spec, config: Config, engineNamespace?: string): Promise<VmRequest> {
  const sizing = sizeDefaults(config);
  const size = vmSize(spec, sizing);
  const accelerator = chooseAccelerator(config.vm.accel, config.vm.requireKvm, probeAccelerator(readText, tryOpen));
  const shape = {
    programs: await findPrograms(config, spec.vm?.hypervisor?.path),
    image: findImage(config, spec.vm?.kernel?.path),
    accelerator: accelerator.accelerator,
    vcpus: size.vcpus,
    memoryBytes: size.memoryBytes,
    limits: growthLimits(size, sizing, config),
    translationBufferBytes: config.vm.tcgTbSize,
    networkPorts: config.vm.networkPorts,
    kernelParameters: spec.vm?.kernel?.parameters ?? [],
    tenant: tenantOf({
      setting: config.template.tenant,
      annotations: spec.annotations ?? {},
      ...(engineNamespace === undefined ? {} : { engineNamespace }),
    }),
    vhostNet: canAccess("/dev/vhost-net"),
    guestConsoleBytes: config.log.guestConsoleBytes,
  };
  return { size, sizing, accelerator, shape, mayClone: mayClone(accelerator, config) };
}

/** Names all machines of which one is as good as the other: what was started for nobody does for whom has the same name. */
export function machineKey({ shape, mayClone }: VmRequest, config: Config): string {
  const { programs, vhostNet, guestConsoleBytes } = shape;
  // The deadline of a call to the agent is its client's, which is there before anybody asks.
  const parts = [templateKey(shape), programs, vhostNet, guestConsoleBytes, mayClone, config.vm.channel, config.deadlines.callMs];
  return createHash("sha256").update(JSON.stringify(parts)).digest("hex").slice(0, 32);
}

/** As `describeVm`. */
export async function planVm(spec: Spec, config: Config, engineNamespace?: string): Promise<VmPlan> {
  const { size, sizing, accelerator, shape, mayClone } = await describeVm(spec, config, engineNamespace);
  const deadlines = { bootMs: config.deadlines.bootMs, callMs: config.deadlines.callMs };
  const { template, made, notes, usedBefore } = mayClone
    ? await obtainTemplate(shape, { store: templateStore(config), room: config.template, deadlineMs: deadlines.bootMs })
    : { template: null, made: false, notes: [], usedBefore: 0 };
  // A clone has been told when its template was booted.
  const clock = template === null ? await clockParameters(shape.programs.helper, shape.accelerator) : [];
  return {
    accelerator,
    cgroupLimits: size.host,
    sizing,
    madeTemplate: made,
    notes,
    vm: {
      ...shape,
      kernelParameters: [...shape.kernelParameters, ...clock],
      // A vsock device cannot come from a template: each sandbox has a number of its own.
      channel: template === null ? chooseChannel(config.vm.channel) : "serial",
      template,
      ...planZygote(template, usedBefore ?? 0, config),
      deadlines,
    },
  };
}

/** A template that is used again soon gets a zygote; one that is used now and then does not: it takes some seconds of processor time, and memory while it waits. */
function planZygote(
  template: Template | null,
  usedBefore: number,
  { template: { warmMs } }: Config,
): Pick<VmSpec, "zygote" | "wantsZygoteMs"> {
  if (template === null || warmMs === 0) return {};
  const zygote = findZygote(template);
  if (zygote !== undefined) return { zygote };
  return Date.now() - usedBefore < warmMs ? { wantsZygoteMs: warmMs } : {};
}

/** How far a machine of that size can grow. */
function growthLimits(size: VmSize, { hostCpus, hostMemoryBytes }: SizeDefaults, { vm }: Config): MachineSize {
  const room = Math.max(0, Math.min(vm.maxMemory, hostMemoryBytes) - size.memoryBytes);
  return {
    vcpus: Math.max(size.vcpus, Math.min(vm.maxVcpus, hostCpus)),
    memoryBytes: size.memoryBytes + Math.ceil(room / memoryStepBytes) * memoryStepBytes,
  };
}

/**
 * The virtual machine that a checkpoint was made of: its size is the checkpoint's, what it may take of the host is the bundle's. Throws `host`, and
 * `unsupported` where this host, or this configuration, would make another one.
 */
export async function planCheckpointedVm(spec: Spec, config: Config, checkpoint: Image): Promise<VmPlan> {
  const { vcpus, networkPorts, memory, limits } = checkpoint.manifest;
  const sizing = sizeDefaults(config);
  const accelerator = chooseAccelerator(config.vm.accel, config.vm.requireKvm, probeAccelerator(readText, tryOpen));
  return {
    accelerator,
    cgroupLimits: vmSize(spec, sizing).host,
    sizing,
    madeTemplate: false,
    notes: [],
    vm: {
      programs: await findPrograms(config, spec.vm?.hypervisor?.path),
      image: findImage(config, spec.vm?.kernel?.path),
      accelerator: accelerator.accelerator,
      vcpus,
      memoryBytes: memory.bytes,
      limits,
      tenant: everybody, // it is cloned from no template
      translationBufferBytes: config.vm.tcgTbSize,
      networkPorts,
      kernelParameters: [],
      channel: "serial",
      template: null,
      checkpoint,
      vhostNet: canAccess("/dev/vhost-net"),
      guestConsoleBytes: config.log.guestConsoleBytes,
      deadlines: { bootMs: config.deadlines.bootMs, callMs: config.deadlines.callMs },
    },
  };
}

/** The store of the configured folder. */
export function templateStore(config: Config): TemplateStore {
  return new TemplateStore(templateFolder(config.template.folder, process.env));
}

/** Under KVM a boot takes a fraction of what it takes under TCG, and templates have not been tried there. */
function mayClone({ accelerator }: AcceleratorChoice, config: Config): boolean {
  return config.template.enabled && accelerator === "tcg" && config.vm.channel !== "vsock";
}

/** `qemu`: the bundle's own choice, which the administrator has allowed (allow.vm_section). */
async function findPrograms(config: Config, qemu: string | undefined): Promise<VmSpec["programs"]> {
  const helper = helperPath();
  const virtiofsd = findVirtiofsd(config.vm.virtiofsd, dirname(helper), process.env);
  return {
    helper,
    qemu: findQemu(qemu ?? config.vm.qemu, process.env),
    virtiofsd,
    // Husk's own build is asked nothing: that would cost each start the time of a program.
    virtiofsdKind: dirname(virtiofsd) === dirname(helper) ? "husk" : await identifyVirtiofsd(virtiofsd),
  };
}

/** `kernel`: likewise; husk's own initramfs goes with it, since the agent is in it. */
function findImage(config: Config, kernel: string | undefined): GuestImage {
  const image = findGuestImage(config.vm.kernel, guestImageFolders(installationFolder(), process.env));
  return kernel === undefined ? image : { ...image, kernel };
}

/** vsock where the host has it: it is faster, and a VM's own. */
function chooseChannel(requested: Config["vm"]["channel"]): "serial" | "vsock" {
  if (requested !== "auto") return requested;
  return canAccess("/dev/vhost-vsock") ? "vsock" : "serial";
}

function canAccess(path: string): boolean {
  try {
    accessSync(path);
    return true;
  } catch {
    return false;
  }
}

function readText(path: string): string {
  return readFileSync(path, "utf8");
}

function tryOpen(path: string): void {
  closeSync(openSync(path, "r+"));
}
