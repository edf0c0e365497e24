/** A running QEMU, over QMP. */
import type { Duplex } from "node:stream";
import { HuskError } from "../../errors.ts";
import { QmpClient } from "../../qmp/qmp.ts";
import { networkPort } from "./command-line.ts";

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
}
