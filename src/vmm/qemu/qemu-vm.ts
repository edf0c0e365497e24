/** A running QEMU, over QMP. */
import type { Duplex } from "node:stream";
import { HuskError } from "../../errors.ts";
import { printable } from "../../host/printable.ts";
import type { Greeting } from "../../qmp/message.ts";
import { QmpClient } from "../../qmp/qmp.ts";
import type { Disk, SharedFolder } from "../machine.ts";
import { AcpiHotplug } from "./acpi-hotplug.ts";
import {
  type Device,
  devicePort,
  diskNode,
  firstDiskPort,
  firstStandInSet,
  folderChardev,
  folderDevice,
  folderPort,
  isFolder,
  knownPorts,
  memoryPort,
  networkPort,
  type PluggedDevices,
} from "./command-line.ts";

/** What a paused machine is saved with and restored by: RAM that lies in a file stays there, and is not sent. */
const migrationCapabilities = {
  capabilities: [
    { capability: "x-ignore-shared", state: true },
    { capability: "events", state: true },
  ],
};

/** A network device to plug in: on which port, with which tap behind it. */
export interface NetworkDevice {
  readonly index: number;
  readonly tap: string;
  readonly mac: string;
  /** Whether the host's kernel moves the packets (vhost-net). */
  readonly vhost: boolean;
}

/** Memory to plug in: how much of it the guest is to use now, of how much that it may come to. */
export interface PluggedMemory {
  readonly bytes: number;
  readonly capacityBytes: number;
  /** Whether daemons that serve the guest must be able to map it. */
  readonly shared: boolean;
}

/** The ids of both halves. A plain "memory-backend" is the name of something of the machine's. */
const plugged = { memory: "plugged-memory", backend: "plugged-memory-backend" };

/** What belongs to the copy of a machine: what its zygote had of that name is there, dead. */
function ownName(name: string): string {
  return `own-${name}`;
}

export class QemuVm {
  readonly #qmp: QmpClient;
  readonly #hotplug: AcpiHotplug;
  readonly #networkPorts: number;
  /** What the shared folder's device and the way to its server are called. */
  #folder = { device: folderDevice(0), chardev: folderChardev(0) };

  private constructor(qmp: QmpClient, networkPorts: number) {
    this.#qmp = qmp;
    this.#hotplug = new AcpiHotplug(qmp);
    this.#networkPorts = networkPorts;
  }

  /** Waits for QEMU's greeting on `stream`. Throws `vmm` or `deadline`. */
  static async open(stream: Duplex, networkPorts: number, deadlineMs: number): Promise<QemuVm> {
    return new QemuVm(await QmpClient.open(stream, { deadlineMs }), networkPorts);
  }

  /** A QEMU that is a copy of one that has greeted already, with those words. */
  static resume(stream: Duplex, networkPorts: number, greeting: Greeting): QemuVm {
    return new QemuVm(QmpClient.resume(stream, greeting), networkPorts);
  }

  /** What QEMU said of itself. */
  get greeting(): Greeting {
    return this.#qmp.greeting;
  }

  /** Which QEMU it is, in its own words. */
  get version(): string {
    const { qemu, package: packaged } = this.#qmp.greeting.version;
    return `${qemu.major}.${qemu.minor}.${qemu.micro}${packaged === "" ? "" : ` (${printable(packaged)})`}`;
  }

  /** Waits until the guest has opened the virtio-serial port whose device id is `id`. Throws `vmm` or `deadline`. */
  async portOpened(id: string, deadlineMs: number): Promise<void> {
    const opened = this.#qmp.waitFor("VSERPORT_CHANGE", (change) => change.id === id && change.open, { deadlineMs });
    // It may have been before we listened.
    const isOpen = (await this.#qmp.execute("query-chardev")).some((chardev) => chardev.label === id && chardev["frontend-open"]);
    if (!isOpen) await opened;
  }

  /** Has QEMU write the state of a machine that is paused, but for the RAM in a file, to the unix socket at `path`. Throws `vmm` or `deadline`. */
  async save(path: string, deadlineMs: number): Promise<void> {
    await this.#qmp.execute("migrate-set-capabilities", migrationCapabilities);
    await this.#migrate("migrate", { uri: `unix:${path}` }, deadlineMs);
  }

  /**
   * Gives a machine that waits for it the state in the file that is QEMU's `descriptor`, and lets it run, with what is to be plugged in. The RAM must be in
   * place. Throws `vmm` or `deadline`.
   */
  async restore(descriptor: number, { known, added }: PluggedDevices, deadlineMs: number): Promise<void> {
    await this.#qmp.execute("migrate-set-capabilities", migrationCapabilities);
    await this.#migrate("migrate-incoming", { uri: `fd:${descriptor}` }, deadlineMs);
    await this.#plug({ known, added });
    await this.#qmp.execute("cont");
  }

  /** Under which descriptors QEMU has the sets that stand in for the disks of its copies, the first disk's first. Throws `vmm`. */
  async diskStandIns(): Promise<number[]> {
    const sets = await this.#qmp.execute("query-fdsets");
    const standIns = sets.filter((set) => set["fdset-id"] >= firstStandInSet);
    return standIns.toSorted((a, b) => a["fdset-id"] - b["fdset-id"]).flatMap(({ fds }) => fds.map(({ fd }) => fd));
  }

  /** Gives the copy of a machine that stands still its folder, where it has one, and its disks, and lets it run. Throws `vmm`. */
  async wake(folders: readonly SharedFolder[], disks: readonly Disk[], devices: PluggedDevices): Promise<void> {
    const { device, chardev } = this.#folder;
    this.#folder = { device: ownName(device), chardev: ownName(chardev) };
    for (const folder of folders) await this.#dialServer(folder);
    await this.#plug(await this.#addDisks(disks, firstStandInSet, devices));
    await this.#qmp.execute("cont");
  }

  /** Gives a machine that is paused its disks, which are in the sets of descriptors from `firstSet` on. Of `devices`, only theirs count. Throws `vmm`. */
  async plugDisks(disks: readonly Disk[], firstSet: number, { known, added }: PluggedDevices): Promise<void> {
    const isDisk = (device: Device): boolean => !isFolder(device);
    await this.#plug(await this.#addDisks(disks, firstSet, { known: known.filter(isDisk), added: added.filter(isDisk) }));
  }

  /**
   * Takes the first disk away from a machine that is paused, without its guest's knowledge, which has let go of it. What it was stays open: QEMU gives the device up
   * some time later, and tells nobody.
   */
  async ejectDisk(): Promise<void> {
    await this.#hotplug.eject(devicePort(firstDiskPort));
  }

  /**
   * Takes the shared folder out of a machine that is paused, without its guest's knowledge, whose files stay open; its server is hung up on. `giveFolder` is to
   * follow before the machine goes on. Throws `vmm` or `deadline`.
   */
  async takeFolder(deadlineMs: number): Promise<void> {
    const { device: id, chardev } = this.#folder;
    const deleted = this.#qmp.waitFor("DEVICE_DELETED", ({ device }) => device === id, { deadlineMs });
    deleted.catch(() => {}); // what comes before it may fail
    await this.#qmp.execute("device_del", { id });
    await this.#hotplug.ejectUnasked(devicePort(folderPort));
    await deleted;
    await this.#qmp.execute("chardev-remove", { id: chardev });
  }

  /** Gives a machine that is paused its shared folder again. Of `devices`, only its is looked at. Throws `vmm`. */
  async giveFolder(folder: SharedFolder, { known }: PluggedDevices): Promise<void> {
    await this.#dialServer(folder);
    await this.#plug(this.#withOwn({ known: known.filter(isFolder), added: [] }));
  }

  async #dialServer({ socket }: SharedFolder): Promise<void> {
    const backend = { type: "socket", data: { addr: { type: "unix", data: { path: socket } }, server: false } };
    await this.#qmp.execute("chardev-add", { id: this.#folder.chardev, backend });
  }

  /** Answers the devices with the backends that were made for them. */
  async #addDisks(disks: readonly Disk[], firstSet: number, devices: PluggedDevices): Promise<PluggedDevices> {
    const nodes = new Map<string, string>();
    for (const [index, disk] of disks.entries()) {
      const node = ownName(`${disk.serial}-${firstSet + index}`);
      nodes.set(disk.serial, node);
      await this.#qmp.execute("blockdev-add", { ...diskNode(disk, node, firstSet + index) });
    }
    return this.#withOwn(devices, nodes);
  }

  /** The devices with the machine's own backends: its folder's, and the nodes of disks, by their serials. */
  #withOwn({ known, added }: PluggedDevices, nodes: ReadonlyMap<string, string> = new Map()): PluggedDevices {
    const withOwn = (device: Device): Device =>
      isFolder(device)
        ? { ...device, id: this.#folder.device, chardev: this.#folder.chardev }
        : { ...device, drive: nodes.get(String(device["serial"])) ?? "" };
    return { known: known.map(withOwn), added: added.map(withOwn) };
  }

  async #plug({ known, added }: PluggedDevices): Promise<void> {
    for (const device of known) await this.#hotplug.plugUnnoticed(device, String(device["bus"]));
    for (const device of added) await this.#qmp.execute("device_add", device);
  }

  /** Takes away the devices that the guest of a template is to know, without its knowledge: see `PluggedDevices.known`. Throws `vmm`. */
  async ejectKnown(): Promise<void> {
    for (const port of knownPorts) await this.#hotplug.eject(devicePort(port));
  }

  /**
   * Runs `hangUp`, and waits until the guest has seen that nobody is behind the virtio-serial port `id` any more, and waits for the next. Throws `vmm` or `deadline`.
   */
  async portReopened(id: string, hangUp: () => void, deadlineMs: number): Promise<void> {
    let wasClosed = false;
    const isReopened = (change: { readonly id: string; readonly open: boolean }): boolean => {
      if (change.id !== id) return false;
      wasClosed ||= !change.open;
      return wasClosed && change.open;
    };
    const reopened = this.#qmp.waitFor("VSERPORT_CHANGE", isReopened, { deadlineMs });
    hangUp();
    await reopened;
  }

  /** Stops the machine's processors and its clock. */
  async pause(): Promise<void> {
    await this.#qmp.execute("stop");
  }

  /** Lets a machine go on that `pause` has stopped. Throws `vmm`. */
  async resume(): Promise<void> {
    await this.#qmp.execute("cont");
  }

  async #migrate(command: "migrate" | "migrate-incoming", args: { readonly uri: string }, deadlineMs: number): Promise<void> {
    const over = ({ status }: { readonly status: string }): boolean => status === "completed" || status === "failed";
    const { status } = await this.#qmp.executeUntil(command, args, "MIGRATION", over, { deadlineMs });
    if (status === "completed") return;
    const { "error-desc": why = "QEMU does not say why" } = await this.#qmp.execute("query-migrate");
    throw new HuskError("vmm", `QEMU's ${command} failed: ${printable(why)}`);
  }

  /**
   * Plugs in a network device, once QEMU has opened its tap and `join` is done, which may move that; the guest sees it a moment later. Throws `vmm`, and as `join`, with
   * nothing left plugged.
   */
  async plugNetwork({ index, tap, mac, vhost }: NetworkDevice, join: () => Promise<void>): Promise<void> {
    if (index >= this.#networkPorts) {
      throw new HuskError("unsupported", `the network namespace has more than ${this.#networkPorts} links`, {
        hint: "see vm.network_ports",
      });
    }
    const id = `net${index}`;
    await this.#qmp.execute("netdev_add", { type: "tap", id, ifname: tap, script: "no", downscript: "no", vhost });
    try {
      await join();
      await this.#qmp.execute("device_add", {
        driver: "virtio-net-pci",
        id: `${id}-device`,
        netdev: id,
        mac,
        bus: networkPort(index),
        romfile: "",
      });
    } catch (error) {
      await this.#qmp.execute("netdev_del", { id });
      throw error;
    }
  }

  /** Plugs in processors until there are `count`; the guest's agent brings them online. None can be unplugged again (see `LiveSize`). Throws `vmm`. */
  async plugProcessors(count: number): Promise<void> {
    const slots = await this.#qmp.execute("query-hotpluggable-cpus");
    const free = slots.filter((slot) => slot["qom-path"] === undefined).toReversed(); // QEMU lists the last first
    const missing = Math.max(0, count - (slots.length - free.length));
    for (const { type, props } of free.slice(0, missing)) await this.#qmp.execute("device_add", { ...props, driver: type });
  }

  /** Plugs in memory; once in a machine's life, since it stays, be it empty. The guest takes it a moment later. Throws `vmm`, with nothing left plugged. */
  async plugMemory({ bytes, capacityBytes: size, shared }: PluggedMemory): Promise<void> {
    const backend = shared ? { "qom-type": "memory-backend-memfd", share: true } : { "qom-type": "memory-backend-ram", reserve: false };
    await this.#qmp.execute("object-add", { ...backend, id: plugged.backend, size });
    try {
      const [memdev, id] = [plugged.backend, plugged.memory];
      await this.#qmp.execute("device_add", { driver: "virtio-mem-pci", id, memdev, bus: memoryPort, "requested-size": bytes });
    } catch (error) {
      await this.#qmp.execute("object-del", { id: plugged.backend });
      throw error;
    }
  }

  /** How much of the plugged memory the guest is to use from now on; what is too much it gives back as it can. Throws `vmm`. */
  async requestMemory(bytes: number): Promise<void> {
    await this.#qmp.execute("qom-set", { path: `/machine/peripheral/${plugged.memory}`, property: "requested-size", value: bytes });
  }

  /** Tells `listener` how much of the plugged memory the guest uses, within a second of each change. */
  watchMemory(listener: (bytes: number) => void): void {
    this.#qmp.on("MEMORY_DEVICE_SIZE_CHANGE", ({ id, size }) => {
      if (id === plugged.memory) listener(size);
    });
  }

  /** Takes a network device away, which the guest is asked to let go of. Throws `vmm` or `deadline`. */
  async unplugNetwork(index: number, deadlineMs: number): Promise<void> {
    const id = `net${index}`;
    const gone = ({ device }: { readonly device?: string }): boolean => device === `${id}-device`;
    await this.#qmp.executeUntil("device_del", { id: `${id}-device` }, "DEVICE_DELETED", gone, { deadlineMs });
    await this.#qmp.execute("netdev_del", { id });
  }
}
