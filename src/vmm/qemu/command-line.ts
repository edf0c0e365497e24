/**
 * QEMU's command line for a machine: pure, and the only place that knows QEMU's words. QEMU 7.2 and later.
 * https://www.qemu.org/docs/master/system/invocation.html
 */
import { HuskError } from "../../errors.ts";
import { type Accelerator, type AgentChannel, agentPortId, agentPortName, type Disk, type Machine, type Memory } from "../machine.ts";

const mebibyte = 1024 * 1024;

/** The arguments after the program's name. */
export function qemuArguments(machine: Machine): string[] {
  const { vcpus, memory } = machine;
  return [
    ["-name", "husk", "-nodefaults", "-no-user-config", "-display", "none", "-no-reboot"],
    // Nothing that a container could ask of a broken QEMU: no new programs, no other user, no scheduling, no obsolete calls.
    ["-sandbox", "on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny"],
    // The devices of a PC that no guest of ours drives only cost boot time and attack surface.
    ["-machine", "q35,memory-backend=ram,sata=off,smbus=off,usb=off,vmport=off,graphics=off,dump-guest-core=off"],
    ["-accel", accelerator(machine), "-cpu", cpuModel(machine.accelerator)],
    ["-smp", machine.limits.vcpus > vcpus ? `${vcpus},maxcpus=${machine.limits.vcpus}` : String(vcpus)],
    ["-m", memorySize(machine), ...memoryArguments(memory)],
    // Another number with each QEMU: a kernel that goes on from a template or a checkpoint is told by it that it is not alone.
    ["-device", "vmgenid,guid=auto"],
    originArguments(machine),
    ["-chardev", `socket,id=control,fd=${machine.controlDescriptor}`, "-mon", "chardev=control,mode=control"],
    ...(machine.monitorDescriptor === undefined
      ? []
      : [["-chardev", `socket,id=monitor,fd=${machine.monitorDescriptor}`, "-mon", "chardev=monitor,mode=control"]]),
    ["-chardev", `socket,id=console,fd=${machine.consoleDescriptor}`, "-serial", "chardev:console"],
    channelArguments(machine.channel),
    ...machine.disks.flatMap((disk, index) => [
      "-add-fd",
      `fd=${disk.descriptor},set=${index + 1}`,
      "-blockdev",
      properties(diskNode(disk, diskName(index), index + 1)),
    ]),
    ...(parks(machine) ? ["-blockdev", `driver=null-co,node-name=${standIn},size=65536,read-zeroes=on`] : []),
    ...diskStandIns(machine),
    ...(hasPorts(machine) ? [] : devices(machine)).map((device) => ["-device", deviceArgument(device)]),
    ...ports(machine).map((id, index) => ["-device", `pcie-root-port,id=${id},chassis=${index + 1}`]),
    ...(hasPorts(machine) ? devicesInPorts(machine) : []).map((device) => ["-device", deviceArgument(device)]),
  ].flat();
}

/** Whether its devices are in ports, out of which they can be taken. */
function hasPorts({ devicePorts }: Machine): boolean {
  return devicePorts > 0;
}

/** Whether it is a template in the making. */
function parks({ origin }: Machine): boolean {
  return origin.kind === "boot" && origin.parks === true;
}

/** Those that are in their ports from the start. QEMU gives no machine its state that has a folder's device. A template's guest knows a first disk as well. */
function devicesInPorts(machine: Machine): Device[] {
  const { known, added } = pluggedDevices(machine);
  const { kind } = machine.origin;
  if (kind === "restore") return [];
  if (kind === "resume") return [...known.filter((device) => !isFolder(device)), ...added];
  return [...known, ...added, ...(parks(machine) ? [{ driver: "virtio-blk-pci", drive: standIn, bus: devicePort(firstDiskPort) }] : [])];
}

/** What is behind the disk that a template is booted with: nothing that is ever read. */
const standIn = "stand-in";

/** What is plugged into a restored machine before it runs. */
export interface PluggedDevices {
  /** What its guest knows from its template, out of which it was taken without the guest's knowledge: it is not told of it. */
  readonly known: readonly Device[];
  /** What its guest is told of. */
  readonly added: readonly Device[];
}

/** The devices of a machine that has ports for them. Throws `internal` where there are not enough. */
export function pluggedDevices(machine: Machine): PluggedDevices {
  const { folders, disks } = machineDevices(machine);
  if (folders.length > 1 || firstDiskPort + disks.length > machine.devicePorts) {
    const wanted = `${folders.length} folders and ${disks.length} disks`;
    throw new HuskError("internal", `${wanted} are more than ${machine.devicePorts} ports are for`);
  }
  const put = (list: Device[], first: number): Device[] => list.map((device, index) => ({ ...device, bus: devicePort(first + index) }));
  const [first, ...others] = put(disks, firstDiskPort);
  return { known: [...put(folders, folderPort), ...(first === undefined ? [] : [first])], added: others };
}

/** Whether it shows a folder, and not a disk. */
export function isFolder(device: Device): boolean {
  return device.driver === folderDriver;
}

const folderDriver = "vhost-user-fs-pci";

/** The ports of the folder and of the first disk, be there one or not: a template's guest knows the devices in them. */
export const folderPort = 0;
export const firstDiskPort = 1;
export const knownPorts = [folderPort, firstDiskPort];

/** How many disks a machine with so many ports can have. */
export function mostDisks(devicePorts: number): number {
  return devicePorts - firstDiskPort;
}

function diskName(index: number): string {
  return `disk${index}`;
}

/** The id of the device of the folder number `index`. */
export function folderDevice(index: number): string {
  return `folder${index}`;
}

/** The id of what connects the machine with the server of the folder number `index`. */
export function folderChardev(index: number): string {
  return `fs${index}`;
}

/** The id of the bus on which the network device number `index` is plugged. */
export function networkPort(index: number): string {
  return `net-port${index}`;
}

/** The id of the bus on which memory is plugged, where the machine's can grow. */
export const memoryPort = "memory-port";

/** Whether the machine is made so that memory can be plugged into it. */
export function canGrowMemory({ memory, limits }: Pick<Machine, "memory" | "limits">): boolean {
  return limits.memoryBytes > memory.bytes;
}

/** A device in QEMU's words: its driver, and the properties that it is made with. */
export type Device = Readonly<Record<string, string | number>> & { readonly driver: string };

function devices(machine: Machine): Device[] {
  const { folders, disks } = machineDevices(machine);
  return [...folders, ...disks];
}

/** The machine's folders and disks. */
function machineDevices({ memory, disks }: Machine): { readonly folders: Device[]; readonly disks: Device[] } {
  const folders = memory.kind === "own" ? memory.folders : [];
  return {
    folders: folders.map(({ tag }, index) => ({
      driver: folderDriver,
      id: folderDevice(index),
      chardev: folderChardev(index),
      tag,
      "queue-size": 1024,
    })),
    disks: disks.map(({ serial }, index) => ({ driver: "virtio-blk-pci", drive: diskName(index), serial })),
  };
}

function deviceArgument({ driver, ...properties }: Device): string {
  return [driver, ...Object.entries(properties).map(([name, value]) => `${name}=${value}`)].join(",");
}

function ports(machine: Machine): string[] {
  const named = (count: number, name: (index: number) => string): string[] => Array.from({ length: count }, (_, index) => name(index));
  return [
    ...named(machine.networkPorts, networkPort),
    ...named(machine.devicePorts, devicePort),
    ...(canGrowMemory(machine) ? [memoryPort] : []),
  ];
}

/** The id of the device port number `index`, and of the bus in it. */
export function devicePort(index: number): string {
  return `device-port${index}`;
}

/** Of what a restored machine was booted from, nothing is needed again: all is in its memory. */
function originArguments(machine: Machine): string[] {
  const { origin } = machine;
  if (origin.kind !== "boot") return ["-S", "-incoming", "defer"];
  return ["-kernel", origin.image.kernel, "-initrd", origin.image.initramfs, "-append", kernelCommandLine(machine)];
}

/** The kernel's command line; images/README.md has what each word saves. */
function kernelCommandLine(machine: Machine): string {
  const channel = machine.channel.kind === "serial" ? "husk.channel=serial" : `husk.channel=vsock:${machine.channel.port}`;
  return [
    "console=ttyS0 quiet panic=-1 reboot=t",
    "tsc=reliable no_timer_check cryptomgr.notests random.trust_cpu=on",
    // With one processor, the kernel would patch the lock prefixes out of all its code: more work than they ever cost.
    ...(machine.vcpus === 1 ? ["noreplace-smp"] : []),
    // What transparent huge pages would have the kernel hold back is the container's.
    "sysctl.vm.min_free_kbytes=4096",
    // Plugged memory is used as it comes: as movable memory, which can be given back, as far as the kernel has enough of its own to keep account of it.
    ...(canGrowMemory(machine) ? ["memhp_default_state=online memory_hotplug.online_policy=auto-movable"] : []),
    // Memory above 4 GiB, be it only possible, has a kernel set 64 MiB aside for devices that cannot reach it. No virtio device needs them.
    "swiotlb=noforce",
    // No network device that the container's namespace does not have.
    "dummy.numdummies=0 ifb.numifbs=0 fb_tunnels=none",
    // What TCG emulates does not speculate, and each retpoline is three more blocks to translate.
    ...(machine.accelerator === "tcg" ? ["mitigations=off"] : []),
    channel,
    // A template's guest lets go of the folder's device, with which QEMU cannot save a machine, before it is ready to be saved.
    ...(parks(machine) ? ["husk.park"] : []),
    ...machine.kernelParameters,
  ].join(" ");
}

function accelerator(machine: Machine): string {
  if (machine.accelerator === "kvm") return "kvm";
  return `tcg,thread=multi,tb-size=${Math.floor(machine.translationBufferBytes / mebibyte)}`;
}

/**
 * Emulated, a `rep movsb` goes byte by byte, and a kernel that sees ERMS or FSRM copies all its memory so: without them it moves eight bytes at a time.
 */
function cpuModel(accelerator: Accelerator): string {
  return accelerator === "kvm" ? "host" : "max,-erms,-fsrm";
}

function memorySize(machine: Machine): string {
  const size = (bytes: number): string => `${Math.floor(bytes / mebibyte)}M`;
  const { memory, limits } = machine;
  return canGrowMemory(machine) ? `${size(memory.bytes)},maxmem=${size(limits.memoryBytes)}` : size(memory.bytes);
}

/**
 * RAM that is shared in QEMU's words stays where it is when the machine's state is saved, and is never written into it. That a template's is a private mapping
 * nevertheless is the host's doing (SandboxProgram.privateMemory): QEMU need not know.
 */
function memoryArguments(memory: Memory): string[] {
  const folders = memory.kind === "own" ? memory.folders : [];
  const backend = `memory-backend-file,id=ram,size=${memory.bytes},share=on,mem-path=/proc/self/fd/${memory.descriptor}`;
  return ["-object", backend, ...folders.flatMap(({ socket }, index) => ["-chardev", `socket,id=${folderChardev(index)},path=${socket}`])];
}

function channelArguments(channel: AgentChannel): string[] {
  if (channel.kind === "vsock") return ["-device", `vhost-vsock-pci,guest-cid=${channel.cid}`];
  return [
    "-device",
    "virtio-serial-pci,max_ports=2",
    "-chardev",
    `socket,id=${agentPortId},fd=${channel.descriptor},server=on,wait=off`,
    "-device",
    `virtserialport,chardev=${agentPortId},name=${agentPortName},id=${agentPortId}`,
  ];
}

/** A disk's backend: the file which is in the set of descriptors number `set`. */
export function diskNode({ readonly, isDevice }: Pick<Disk, "readonly" | "isDevice">, name: string, set: number): DiskNode {
  const file = { driver: isDevice ? "host_device" : "file", filename: `/dev/fdset/${set}` };
  return { driver: "raw", "node-name": name, "read-only": readonly, file, discard: "unmap" };
}

/** The first of the sets of descriptors that a zygote has for its copies' disks: above those of its own. */
export const firstStandInSet = 101;

interface DiskNode {
  readonly driver: string;
  readonly "node-name": string;
  readonly "read-only": boolean;
  readonly file: { readonly driver: string; readonly filename: string };
  readonly discard: string;
}

function properties({ file, "read-only": readonly, ...rest }: DiskNode): string {
  const all = { ...rest, "read-only": readonly ? "on" : "off", "file.driver": file.driver, "file.filename": file.filename };
  return Object.entries(all)
    .map(([name, value]) => `${name}=${value}`)
    .join(",");
}

/** The first of the sets of descriptors that a machine is given while it runs. */
export const firstGivenSet = 201;

/** Likewise, of those that a zygote's copy is given: it has its zygote's as well. */
export const firstCopysGivenSet = 301;

/** A set of descriptors for each disk that a copy may have. */
function diskStandIns({ diskStandIn, devicePorts }: Machine): string[] {
  if (diskStandIn === undefined) return [];
  return Array.from({ length: mostDisks(devicePorts) }, (_, index) => [
    "-add-fd",
    `fd=${diskStandIn},set=${firstStandInSet + index}`,
  ]).flat();
}
