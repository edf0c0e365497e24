/** A running QEMU, over QMP. */
import type { Duplex } from "node:stream";
import { HuskError } from "../../errors.ts";
import { printable } from "../../host/printable.ts";
import { QmpClient } from "../../qmp/qmp.ts";
import { type Device, networkPort } from "./command-line.ts";

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

export class QemuVm {
  readonly #qmp: QmpClient;
  readonly #networkPorts: number;

  private constructor(qmp: QmpClient, networkPorts: number) {
    this.#qmp = qmp;
    this.#networkPorts = networkPorts;
  }

  /** Waits for QEMU's greeting on `stream`. Throws `vmm` or `deadline`. */
  static async open(stream: Duplex, networkPorts: number, deadlineMs: number): Promise<QemuVm> {
    return new QemuVm(await QmpClient.open(stream, { deadlineMs }), networkPorts);
  }

  /** Waits until the guest has opened the virtio-serial port whose device id is `id`. Throws `vmm` or `deadline`. */
  async portOpened(id: string, deadlineMs: number): Promise<void> {
    const opened = this.#qmp.waitFor("VSERPORT_CHANGE", (change) => change.id === id && change.open, { deadlineMs });
    // It may have been before we listened.
    const isOpen = (await this.#qmp.execute("query-chardev")).some((chardev) => chardev.label === id && chardev["frontend-open"]);
    if (!isOpen) await opened;
  }

  /** Pauses the machine and has QEMU write its state, but for the RAM in a file, to the unix socket at `path`. Throws `vmm` or `deadline`. */
  async save(path: string, deadlineMs: number): Promise<void> {
    await this.#qmp.execute("stop");
    await this.#qmp.execute("migrate-set-capabilities", migrationCapabilities);
    await this.#migrate("migrate", { uri: `unix:${path}` }, deadlineMs);
  }

  /**
   * Gives a machine that waits for it the state in the file that is QEMU's `descriptor`, plugs in `devices`, and lets it run. The RAM must be in place.
   * Throws `vmm` or `deadline`.
   */
  async restore(descriptor: number, devices: readonly Device[], deadlineMs: number): Promise<void> {
    await this.#qmp.execute("migrate-set-capabilities", migrationCapabilities);
    await this.#migrate("migrate-incoming", { uri: `fd:${descriptor}` }, deadlineMs);
    for (const device of devices) await this.#qmp.execute("device_add", device);
    await this.#qmp.execute("cont");
  }

  /** Stops the machine's processors and its clock. */
  async pause(): Promise<void> {
    await this.#qmp.execute("stop");
  }

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

  /** Plugs in a network device; the guest sees it a moment later. Throws `vmm`, with nothing left plugged. */
  async plugNetwork({ index, tap, mac, vhost }: NetworkDevice): Promise<void> {
    if (index >= this.#networkPorts) {
      throw new HuskError("unsupported", `the network namespace has more than ${this.#networkPorts} links`, {
        hint: "see vm.network_ports",
      });
    }
    const id = `net${index}`;
    await this.#qmp.execute("netdev_add", { type: "tap", id, ifname: tap, script: "no", downscript: "no", vhost });
    try {
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

  /** Takes a network device away, which the guest is asked to let go of. Throws `vmm` or `deadline`. */
  async unplugNetwork(index: number, deadlineMs: number): Promise<void> {
    const id = `net${index}`;
    const gone = ({ device }: { readonly device?: string }): boolean => device === `${id}-device`;
    await this.#qmp.executeUntil("device_del", { id: `${id}-device` }, "DEVICE_DELETED", gone, { deadlineMs });
    await this.#qmp.execute("netdev_del", { id });
  }
}
