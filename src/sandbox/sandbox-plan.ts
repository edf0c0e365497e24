/** From what a sandbox is to be, to what the helper makes and QEMU is told: pure, apart from asking which folders exist. */
import { existsSync } from "node:fs";
import type { Image } from "../checkpoint/image.ts";
import type { SandboxDevice, SandboxMount, SandboxPlan, SandboxProgram } from "../host/sandbox-plan.ts";
import { firstExtraDescriptor } from "../host/sandbox-process.ts";
import { type ImageDisk, sharePoint } from "../storage/container-storage.ts";
import { type CloneDescriptors, type CloneSource, copyParts, filledParts, privateParts, zygoteParts } from "../template/clone.ts";
import { devicePorts } from "../template/shape.ts";
import { type SharePrograms, share, shareServer } from "../template/share.ts";
import type { Template } from "../template/store.ts";
import type { Zygote } from "../template/zygote.ts";
import { hypervisorTree, hypervisorUser } from "../vmm/confinement.ts";
import type { Accelerator, AgentChannel, Disk, GuestImage, Machine, MachineSize, Memory, Origin } from "../vmm/machine.ts";
import { mostDisks } from "../vmm/qemu/command-line.ts";
import { qemuProgram } from "../vmm/qemu/program.ts";

/** Everything that shapes a sandbox. */
export interface SandboxSpec {
  readonly id: string;
  /** The guest's own, which containers without a UTS namespace of their own have. */
  readonly hostname: string;
  readonly programs: SharePrograms & { readonly helper: string; readonly qemu: string };
  readonly image: GuestImage;
  readonly accelerator: Accelerator;
  readonly channel: "serial" | "vsock";
  /** What the VM is cloned from; null: it is booted. A clone's channel is serial. */
  readonly template: Template | null;
  /** The template's zygote, of which the VM is a copy where it can be. */
  readonly zygote?: Zygote | undefined;
  /** The sum of the memory that the helper has filled before the launch, for a zygote's copy that shows folders; of another one it makes no use. */
  readonly filled?: string;
  /** The template has no zygote and should have one, for so many milliseconds since its last use. */
  readonly wantsZygoteMs?: number | undefined;
  /** The VM is to become a zygote itself, which listens on that socket. */
  readonly zygoteSocket?: string | undefined;
  /** The checkpoint that the VM goes on from, in place of a boot and of a template. Its channel is serial. */
  readonly checkpoint?: Image;
  readonly vhostNet: boolean;
  readonly vcpus: number;
  readonly memoryBytes: number;
  /** How far the machine can grow while it runs. */
  readonly limits: MachineSize;
  readonly translationBufferBytes: number;
  readonly networkPorts: number;
  readonly guestConsoleBytes: number;
  readonly kernelParameters: readonly string[];
  /** Whose templates it may be cloned from. */
  readonly tenant: string;
  /** The network namespace whose links the guest has; null: the one that QEMU is in, which is made for it. */
  readonly netns: string | null;
  readonly cgroups: readonly string[];
  /** Whether host paths can be shown to the guest, now or later. */
  readonly shares: boolean;
  /** Host paths that the guest sees below `sharePoint` from the start. */
  readonly mounts: readonly SandboxMount[];
  readonly disks: readonly ImageDisk[];
  /** The unix socket, as the host sees it, behind which the agent is dialled. */
  readonly agentSocket: string;
  /** SandboxPlan.remains. */
  readonly remains: readonly string[];
  /** Where the guest's console is kept. */
  readonly consoleLog: string;
  readonly deadlines: { readonly bootMs: number; readonly callMs: number };
}

/** vsock context ids, one a sandbox; 0 to 2 are the protocol's own. */
const firstContextId = 0x10000;

const descriptors = {
  control: firstExtraDescriptor,
  console: firstExtraDescriptor + 1,
  agent: firstExtraDescriptor + 2,
  shares: firstExtraDescriptor + 3,
  kernel: firstExtraDescriptor + 4,
  initramfs: firstExtraDescriptor + 5,
};
const cloneDescriptors: CloneDescriptors = {
  source: firstExtraDescriptor + 6,
  memory: firstExtraDescriptor + 7,
  state: firstExtraDescriptor + 8,
};
const zygoteDescriptor = firstExtraDescriptor + 9;
const diskStandIn = firstExtraDescriptor + 10;
const secondMonitor = firstExtraDescriptor + 11;
const folderState = firstExtraDescriptor + 12;
const firstDiskDescriptor = firstExtraDescriptor + 13;

/** How many socket pairs the plan needs: QMP and the console. */
export const channelCount = 2;

/** The plan for the helper whose PID is `helperPid`. */
export function planSandbox(spec: SandboxSpec, helperPid: number): SandboxPlan {
  const uid = hypervisorUser(helperPid);
  const contextId = firstContextId + helperPid;
  const machine = planMachine(spec, contextId);
  const origin = originParts(spec);
  const programs: SandboxProgram[] = [...origin.programs];
  if (spec.channel === "vsock") programs.push(relay(spec.programs.helper, contextId));
  const filesBefore = spec.checkpoint?.folder;
  if (spec.shares) programs.push(shareServer(spec.programs, descriptors.shares, filesBefore === undefined ? undefined : folderState));
  const channelDescriptors = spec.channel === "serial" ? [descriptors.agent] : [];
  const diskDescriptors = machine.disks.map((disk) => disk.descriptor);
  const isCopy = copiesZygote(spec);
  const forQemu = [descriptors.control, descriptors.console, ...origin.forQemu, ...channelDescriptors, ...(isCopy ? [] : diskDescriptors)];
  const becomesZygote = spec.zygoteSocket !== undefined;
  if (becomesZygote) forQemu.push(zygoteDescriptor, diskStandIn);
  if (machine.monitorDescriptor !== undefined) forQemu.push(machine.monitorDescriptor);
  const qemu = qemuProgram(spec.programs.qemu, machine, forQemu);
  programs.push(
    isCopy ? { ...qemu, copy: copyOf(spec, diskDescriptors) } : { ...qemu, ...(becomesZygote ? { zygote: zygoteDescriptor } : {}) },
  );
  return {
    ...(becomesZygote ? { zygote: true } : {}),
    dial: isCopy ? [{ fd: zygoteDescriptor, path: spec.zygote.socket }] : [],
    cgroups: spec.cgroups,
    listen: [
      { fd: descriptors.agent, path: spec.agentSocket },
      ...(spec.zygoteSocket === undefined ? [] : [{ fd: zygoteDescriptor, path: spec.zygoteSocket, packets: true as const }]),
    ],
    open: [
      ...origin.open,
      ...(filesBefore === undefined ? [] : [{ fd: folderState, path: filesBefore, write: false }]),
      ...spec.disks.map((disk, index) => ({ fd: firstDiskDescriptor + index, path: disk.path, write: !disk.readonly })),
    ],
    memory: [...origin.memory, ...(becomesZygote ? [{ fd: diskStandIn, bytes: 4096 }] : [])],
    ...(machine.monitorDescriptor === undefined ? {} : { monitor: machine.monitorDescriptor }),
    tree: { readonly: hypervisorTree(spec.programs.qemu, [spec.programs.virtiofsd, spec.programs.helper]), devices: devices(spec) },
    user: { uid, gid: uid },
    mounts: spec.mounts,
    processes: programs,
    remains: spec.remains,
  };
}

function copyOf(
  { zygote, shares }: { readonly zygote: Zygote; readonly shares: boolean },
  disks: readonly number[],
): SandboxProgram["copy"] {
  const places = disks.flatMap((own, index): [number, number][] => {
    const place = zygote.disks[index];
    return place === undefined ? [] : [[own, place]];
  });
  return { from: zygoteDescriptor, ...(shares ? { memory: memoryDescriptor } : {}), places };
}

type OriginParts = Pick<SandboxPlan, "open" | "memory"> & {
  readonly programs: readonly SandboxProgram[];
  readonly forQemu: readonly number[];
};

function originParts(spec: SandboxSpec): OriginParts {
  if (copiesZygote(spec)) {
    if (!spec.shares) return { open: [], memory: [], programs: [], forQemu: [] };
    if (isFilled(spec)) {
      const parts = filledParts(spec.zygote, spec.memoryBytes, memoryDescriptor);
      return { ...parts, programs: [], forQemu: [memoryDescriptor] };
    }
    const { program, ...parts } = zygoteParts(spec.zygote, spec.memoryBytes, spec.programs.helper, cloneDescriptors);
    return { ...parts, programs: [program], forQemu: [cloneDescriptors.memory] };
  }
  if (mapsTemplate(spec)) {
    const parts = privateParts(spec.template, cloneDescriptors);
    return { ...parts, programs: [], forQemu: [cloneDescriptors.memory, cloneDescriptors.state] };
  }
  const saved = savedMachine(spec);
  return saved === null ? bootParts(spec) : restoreParts(saved, spec.programs.helper);
}

/** Whether the machine is the copy of a zygote. */
export function copiesZygote(spec: SandboxSpec): spec is SandboxSpec & { readonly template: Template; readonly zygote: Zygote } {
  return (
    spec.template !== null && spec.zygote !== undefined && spec.checkpoint === undefined && spec.disks.length <= spec.zygote.disks.length
  );
}

/** Whether the machine is the copy of a zygote, whose memory is there, and full, before it is launched. */
export function isFilled(spec: SandboxSpec): boolean {
  return copiesZygote(spec) && spec.filled === spec.zygote.sum;
}

/** Whether the machine's RAM is the template's, mapped privately: nobody but QEMU has to map it. */
export function mapsTemplate(spec: SandboxSpec): spec is SandboxSpec & { readonly template: Template } {
  return spec.template !== null && spec.checkpoint === undefined && !spec.shares;
}

function bootParts({ image, memoryBytes }: SandboxSpec): OriginParts {
  const { kernel, initramfs } = descriptors;
  const open = [
    { fd: kernel, path: image.kernel, write: false },
    { fd: initramfs, path: image.initramfs, write: false },
  ];
  const memory = [{ fd: memoryDescriptor, bytes: memoryBytes }];
  return { open, memory, programs: [], forQemu: [kernel, initramfs, memoryDescriptor] };
}

function restoreParts(saved: CloneSource, helper: string): OriginParts {
  const { open, memory, program } = copyParts(saved, helper, cloneDescriptors);
  return { open, memory, programs: [program], forQemu: [cloneDescriptors.memory, cloneDescriptors.state] };
}

/** What the machine begins with, where that lies in files. */
function savedMachine({ template, checkpoint }: SandboxSpec): CloneSource | null {
  if (checkpoint === undefined) return template;
  const { manifest, memory: ram, state } = checkpoint;
  return { ram, state, manifest: { ramBytes: manifest.memory.bytes, ramSum: manifest.memory.sum }, packed: true };
}

/** Where QEMU finds the template's state, or the checkpoint's. */
export const stateDescriptor = cloneDescriptors.state;

/** Where QEMU has the guest's memory. */
const memoryDescriptor = cloneDescriptors.memory;

/** The same, as the host sees it: `qemu` is QEMU's PID. */
export function memoryPath(qemu: number): string {
  return `/proc/${qemu}/fd/${memoryDescriptor}`;
}

/** The machine, with the descriptors that `planSandbox` gives it. */
export function planMachine(spec: SandboxSpec, contextId: number): Machine {
  const channel: AgentChannel =
    spec.channel === "serial" ? { kind: "serial", descriptor: descriptors.agent } : { kind: "vsock", cid: contextId, port: contextId };
  const disks: Disk[] = spec.disks.map(({ serial, isDevice, readonly }, index) => ({
    serial,
    isDevice,
    readonly,
    descriptor: firstDiskDescriptor + index,
  }));
  return {
    accelerator: spec.accelerator,
    vcpus: spec.vcpus,
    memory: planMemory(spec),
    limits: spec.limits,
    origin: planOrigin(spec),
    channel,
    disks,
    ...(spec.zygoteSocket === undefined ? {} : { diskStandIn }),
    networkPorts: spec.networkPorts,
    devicePorts: spec.checkpoint?.manifest.devicePorts ?? (spec.template !== null || mayTakeFolder(spec) ? devicePorts : 0),
    controlDescriptor: descriptors.control,
    consoleDescriptor: descriptors.console,
    // Any of them may come to wait for somebody who gives it a disk; a zygote's copies have what it has.
    ...(spec.template === null || spec.checkpoint !== undefined ? {} : { monitorDescriptor: secondMonitor }),
    translationBufferBytes: spec.translationBufferBytes,
    kernelParameters: spec.kernelParameters,
  };
}

/**
 * Whether a machine that is booted is made so that its folder's device can be taken out for a checkpoint. Under TCG, where each port costs a boot some time, those
 * come from templates.
 */
function mayTakeFolder({ accelerator, shares, channel, disks }: SandboxSpec): boolean {
  return accelerator === "kvm" && shares && channel === "serial" && disks.length <= mostDisks(devicePorts);
}

/** The same machine as it would be resumed from a checkpoint. */
export function planResumed(spec: SandboxSpec): Machine {
  const { monitorDescriptor: _, ...machine } = planMachine(spec, 0);
  return { ...machine, origin: { kind: "resume" }, memory: ownMemory(spec) };
}

function planMemory(spec: SandboxSpec): Memory {
  return mapsTemplate(spec) ? { kind: "template", bytes: spec.memoryBytes, descriptor: memoryDescriptor } : ownMemory(spec);
}

function ownMemory({ memoryBytes: bytes, shares }: SandboxSpec): Memory {
  return { kind: "own", bytes, descriptor: memoryDescriptor, folders: shares ? [share] : [] };
}

function planOrigin({ template, checkpoint, image }: SandboxSpec): Origin {
  if (checkpoint !== undefined) return { kind: "resume" };
  if (template !== null) return { kind: "restore" };
  // By descriptor: nothing of the host's folders has to be in QEMU's tree for them.
  const [kernel, initramfs] = [`/proc/self/fd/${descriptors.kernel}`, `/proc/self/fd/${descriptors.initramfs}`];
  return { kind: "boot", image: { ...image, kernel, initramfs } };
}

/** The virtio-fs devices that the agent mounts. */
export function sharedFolders(spec: SandboxSpec): { tag: string; mountPoint: string }[] {
  return spec.shares ? [{ tag: share.tag, mountPoint: sharePoint }] : [];
}

function relay(helper: string, contextId: number): SandboxProgram {
  const argv = [helper, "vsock", "--port", String(contextId), "--cid", String(contextId), "--fd", String(descriptors.agent)];
  return { name: "vsock", argv, user: "user", fds: [descriptors.agent] };
}

function devices(spec: SandboxSpec): SandboxDevice[] {
  const wanted: SandboxDevice[] = ["net/tun"];
  if (spec.accelerator === "kvm") wanted.push("kvm");
  if (spec.channel === "vsock") wanted.push("vhost-vsock");
  if (spec.vhostNet) wanted.push("vhost-net");
  return wanted.filter((device) => device !== "net/tun" || existsSync("/dev/net/tun"));
}
