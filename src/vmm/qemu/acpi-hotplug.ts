/**
 * The registers of QEMU's Q35 machine by which its firmware's byte code and QEMU tell each other of devices that come and go, used from the outside: so a
 * device can be exchanged without the guest's knowledge. https://www.qemu.org/docs/master/specs/acpi_pci_hotplug.html; the event is a bit of the
 * ICH9's general-purpose events (Intel 82801, GPE0_STS).
 */
import { HuskError } from "../../errors.ts";
import { integer, read } from "../../narrow.ts";
import type { QmpClient } from "../../qmp/qmp.ts";

/** Of 32 bits each; what has been inserted is forgotten when it is read. */
const registers = { inserted: 0x0cc0, eject: 0x0cc8, select: 0x0cd0 };
/** Of 8 bits: writing a bit clears it. */
const events = { status: 0x0620, somethingChanged: 1 << 1 };
/** A port's bus has one slot. */
const onlySlot = 1;

/** Takes away what is in the port `id`, without the guest being asked. Throws `vmm`. */
export async function eject(qmp: QmpClient, id: string): Promise<void> {
  await selectBus(qmp, id);
  await output(qmp, "w", registers.eject, onlySlot);
}

/** Likewise, where the guest has been asked to let it go and is not to learn of that. It stands still. Throws `vmm`. */
export async function ejectUnasked(qmp: QmpClient, id: string): Promise<void> {
  await eject(qmp, id);
  await output(qmp, "b", events.status, events.somethingChanged);
}

/** Takes back the event that something was plugged into the port `id` of a machine that stands still. Throws `vmm`, also where there was none. */
export async function forgetInsertion(qmp: QmpClient, id: string): Promise<void> {
  await selectBus(qmp, id);
  const answer = await monitor(qmp, `i/w ${registers.inserted}`);
  const [, inserted] = /^port\w\[0x\w+\] = 0x([0-9a-f]+)\s*$/.exec(answer) ?? [];
  if (inserted === undefined || Number.parseInt(inserted, 16) !== onlySlot) throw unexpected("a device in the only slot", answer);
  await output(qmp, "b", events.status, events.somethingChanged);
}

/** Makes the registers those of the bus of the port `id`. */
async function selectBus(qmp: QmpClient, id: string): Promise<void> {
  const number = await qmp.execute("qom-get", { path: `/machine/peripheral/${id}/${id}`, property: "acpi-pcihp-bsel" });
  await output(qmp, "w", registers.select, read(integer(0, 255), number));
}

async function output(qmp: QmpClient, size: "b" | "w", register: number, value: number): Promise<void> {
  const answer = await monitor(qmp, `o/${size} ${register} ${value}`);
  if (answer !== "") throw unexpected("nothing", answer);
}

/** A command of QEMU's monitor for people, whose errors are words like all others. */
function monitor(qmp: QmpClient, line: string): Promise<string> {
  return qmp.execute("human-monitor-command", { "command-line": line });
}

function unexpected(expected: string, answer: string): HuskError {
  return new HuskError("vmm", `QEMU's hot-plug registers: expected ${expected}, got ${JSON.stringify(answer.slice(0, 128))}`);
}
