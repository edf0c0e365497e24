/** From what a sandbox is to be, to what the helper makes and QEMU is told: pure, apart from asking which folders exist. */
import { existsSync } from "node:fs";
import { dirname } from "node:path";
import type { SandboxDevice, SandboxMount, SandboxPlan, SandboxProgram } from "../host/sandbox-plan.ts";
import { firstExtraDescriptor } from "../host/sandbox-process.ts";
import { type ImageDisk, sharePoint } from "../storage/container-storage.ts";
import type { Accelerator, AgentChannel, Disk, GuestImage, Machine, Memory } from "../vmm/machine.ts";
import { qemuArguments } from "../vmm/qemu/command-line.ts";
import { type VirtiofsdKind, virtiofsdArguments } from "../vmm/virtiofsd.ts";

/** Everything that shapes a sandbox. */
export interface SandboxSpec {
  readonly id: string;
  readonly programs: {
    readonly helper: string;
    readonly qemu: string;
    readonly virtiofsd: string;
    readonly virtiofsdKind: VirtiofsdKind;
  };
  readonly image: GuestImage;
  readonly accelerator: Accelerator;
  readonly channel: "serial" | "vsock";
  readonly vhostNet: boolean;
  readonly vcpus: number;
  readonly memoryBytes: number;
  readonly translationBufferBytes: number;
  readonly networkPorts: number;
  readonly guestConsoleBytes: number;
  readonly kernelParameters: readonly string[];
  /** The network namespace to enter; null: a new one. */
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

const shareTag = "husk";

/** Users that QEMU runs as: one a sandbox, far above any that a distribution gives out. */
const firstUser = 0x70000000;
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
const firstDiskDescriptor = firstExtraDescriptor + 6;
const sharesSocket = "/run/shares.sock";

/** How many socket pairs the plan needs: QMP and the console. */
export const channelCount = 2;

/** The user that QEMU of the sandbox with this helper PID runs as. PIDs of live processes differ, so the users do. */
export function sandboxUser(helperPid: number): number {
  return firstUser + helperPid;
}

/** The plan for the helper whose PID is `helperPid`. */
export function planSandbox(spec: SandboxSpec, helperPid: number): SandboxPlan {
  const uid = sandboxUser(helperPid);
  const contextId = firstContextId + helperPid;
  const machine = planMachine(spec, contextId);
  const programs: SandboxProgram[] = [];
  if (spec.channel === "vsock") programs.push(relay(spec.programs.helper, contextId));
  if (spec.shares) programs.push(virtiofsd(spec.programs));
  const channelDescriptors = spec.channel === "serial" ? [descriptors.agent] : [];
  programs.push({
    name: "qemu",
    argv: [spec.programs.qemu, ...qemuArguments(machine)],
    user: "user",
    fds: [
      descriptors.control,
      descriptors.console,
      descriptors.kernel,
      descriptors.initramfs,
      ...channelDescriptors,
      ...machine.disks.map((disk) => disk.descriptor),
    ],
  });
  return {
    netns: spec.netns,
    cgroups: spec.cgroups,
    listen: [{ fd: descriptors.agent, path: spec.agentSocket }],
    open: [
      { fd: descriptors.kernel, path: spec.image.kernel, write: false },
      { fd: descriptors.initramfs, path: spec.image.initramfs, write: false },
      ...spec.disks.map((disk, index) => ({ fd: firstDiskDescriptor + index, path: disk.path, write: !disk.readonly })),
    ],
    tree: { readonly: readonlyTree(spec), devices: devices(spec) },
    user: { uid, gid: uid },
    mounts: spec.mounts,
    processes: programs,
    remains: spec.remains,
  };
}

function planMachine(spec: SandboxSpec, contextId: number): Machine {
  const memory: Memory = spec.shares
    ? { kind: "shared", bytes: spec.memoryBytes, folders: [{ tag: shareTag, socket: sharesSocket }] }
    : { kind: "private", bytes: spec.memoryBytes };
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
    memory,
    // By descriptor: nothing of the host's folders has to be in QEMU's tree for them.
    image: { ...spec.image, kernel: `/proc/self/fd/${descriptors.kernel}`, initramfs: `/proc/self/fd/${descriptors.initramfs}` },
    channel,
    disks,
    networkPorts: spec.networkPorts,
    controlDescriptor: descriptors.control,
    consoleDescriptor: descriptors.console,
    translationBufferBytes: spec.translationBufferBytes,
    kernelParameters: spec.kernelParameters,
  };
}

/** The virtio-fs devices that the agent mounts. */
export function sharedFolders(spec: SandboxSpec): { tag: string; mountPoint: string }[] {
  return spec.shares ? [{ tag: shareTag, mountPoint: sharePoint }] : [];
}

function virtiofsd({ virtiofsd: program, virtiofsdKind }: SandboxSpec["programs"]): SandboxProgram {
  return {
    name: "virtiofsd",
    argv: [program, ...virtiofsdArguments(virtiofsdKind, "/shared", descriptors.shares)],
    user: "root",
    fds: [],
    socket: sharesSocket,
    socketFd: descriptors.shares,
  };
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

/** What QEMU, virtiofsd and the relay read of the host: their programs, libraries and firmware. */
function readonlyTree(spec: SandboxSpec): string[] {
  const system = ["/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/etc/ld.so.cache", "/etc/alternatives"].filter((path) =>
    existsSync(path),
  );
  const { qemu, virtiofsd, helper } = spec.programs;
  const outside = [dirname(qemu), virtiofsd, helper].filter((path) => !path.startsWith("/usr/"));
  return [...system, ...outside];
}
