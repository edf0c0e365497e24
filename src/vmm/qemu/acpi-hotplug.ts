/**
 * The registers of QEMU's Q35 machine by which its firmware's byte code and QEMU tell each other of devices that come and go, used from the outside: so a
 * device can be exchanged without the guest's knowledge. https://www.qemu.org/docs/master/specs/acpi_pci_hotplug.html; the event is a bit of the
 * ICH9's general-purpose events (Intel 82801, GPE0_STS).
 */
import { HuskError } from "../../errors.ts";
import { integer, read } from "../../narrow.ts";
import type { QmpArguments, QmpClient } from "../../qmp/qmp.ts";

/** Of 32 bits each; what has been inserted is forgotten when it is read. */
const registers = { inserted: 0x0cc0, eject: 0x0cc8, select: 0x0cd0 };
/** Of 8 bits: writing a bit clears it. */
const events = { status: 0x0620, somethingChanged: 1 << 1 };
/** A port's bus has one slot. */
const onlySlot = 1;

export class AcpiHotplug {
  readonly #qmp: QmpClient;
  /** By the ports' ids, what the registers call their buses: that stays as long as the machine does. */
  readonly #buses = new Map<string, number>();

  constructor(qmp: QmpClient) {
    this.#qmp = qmp;
  }

  /** Takes away what is in the port `id`, without the guest being asked. Throws `vmm`. */
  async eject(id: string): Promise<void> {
    const bus = await this.#bus(id);
    await Promise.all([this.#select(bus), this.#output("w", registers.eject, onlySlot)]);
  }

  /** Likewise, where the guest has been asked to let it go and is not to learn of that. It stands still. Throws `vmm`. */
  async ejectUnasked(id: string): Promise<void> {
    await this.eject(id);
    await this.#forgetEvent();
  }

  /**
   * Plugs `device` into the port `id` of a machine that stands still, and takes back the event that something was. Throws `vmm`, also where nothing was inserted.
   */
  async plugUnnoticed(device: QmpArguments<"device_add">, id: string): Promise<void> {
    const bus = await this.#bus(id);
    // All at once: QEMU carries commands out in the order in which they came, and each answer would have to be waited for.
    await Promise.all([this.#qmp.execute("device_add", device), this.#select(bus), this.#takeInserted(), this.#forgetEvent()]);
  }

  async #bus(id: string): Promise<number> {
    const known = this.#buses.get(id);
    if (known !== undefined) return known;
    const answer = await this.#qmp.execute("qom-get", { path: `/machine/peripheral/${id}/${id}`, property: "acpi-pcihp-bsel" });
    const number = read(integer(0, 255), answer);
    this.#buses.set(id, number);
    return number;
  }

  /** Makes the registers those of a bus. */
  #select(bus: number): Promise<void> {
    return this.#output("w", registers.select, bus);
  }

  async #takeInserted(): Promise<void> {
    const answer = await this.#monitor(`i/w ${registers.inserted}`);
    const [, inserted] = /^port\w\[0x\w+\] = 0x([0-9a-f]+)\s*$/.exec(answer) ?? [];
    if (inserted === undefined || Number.parseInt(inserted, 16) !== onlySlot) throw unexpected("a device in the only slot", answer);
  }

  #forgetEvent(): Promise<void> {
    return this.#output("b", events.status, events.somethingChanged);
  }

  async #output(size: "b" | "w", register: number, value: number): Promise<void> {
    const answer = await this.#monitor(`o/${size} ${register} ${value}`);
    if (answer !== "") throw unexpected("nothing", answer);
  }

  /** A command of QEMU's monitor for people, whose errors are words like all others. */
  #monitor(line: string): Promise<string> {
    return this.#qmp.execute("human-monitor-command", { "command-line": line });
  }
}

function unexpected(expected: string, answer: string): HuskError {
  return new HuskError("vmm", `QEMU's hot-plug registers: expected ${expected}, got ${JSON.stringify(answer.slice(0, 128))}`);
}
