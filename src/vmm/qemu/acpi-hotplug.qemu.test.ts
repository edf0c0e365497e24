/** The registers of a real QEMU's machine, which stands still. */
import { afterEach, expect, test } from "vitest";
import { endQemus, startQemu } from "../../qmp/started-qemu.ts";
import { AcpiHotplug } from "./acpi-hotplug.ts";

afterEach(endQemus);

const ports = ["one", "two"].flatMap((id, index) => ["-device", `pcie-root-port,id=${id},chassis=${index + 1}`]);

async function machine() {
  const { qmp } = await startQemu("-machine", "q35", "-accel", "tcg", "-m", "32M", ...ports);
  const device = (id: string, bus: string) => ({ driver: "virtio-rng-pci", id, bus });
  const plug = (id: string, bus: string) => qmp.execute("device_add", device(id, bus));
  const type = (id: string) => qmp.execute("qom-get", { path: `/machine/peripheral/${id}`, property: "type" });
  return { qmp, hotplug: new AcpiHotplug(qmp), device, plug, type };
}

test("a device in a port is ejected, and no other", async () => {
  const { qmp, hotplug, plug, type } = await machine();
  await plug("first", "one");
  await plug("second", "two");
  await hotplug.eject("two");
  await expect(type("second")).rejects.toMatchObject({ class: "DeviceNotFound" });
  expect(await type("first")).toBe("virtio-rng-pci");
  await plug("third", "two"); // the port is free again
  await qmp.close();
});

test("a device is plugged without an event, and without another one's being lost", async () => {
  const { qmp, hotplug, device, type } = await machine();
  const status = () => qmp.execute("human-monitor-command", { "command-line": "i/b 0x0620" });
  const before = await status();
  for (const bus of ["one", "two"]) {
    await hotplug.plugUnnoticed(device(`in-${bus}`, bus), bus);
    expect(await type(`in-${bus}`)).toBe("virtio-rng-pci");
    expect(await status()).toBe(before);
  }
  await qmp.close();
});

test("a device that cannot be plugged is told, and so is one that is in no such port", async () => {
  const { qmp, hotplug, device } = await machine();
  const unknown = { ...device("first", "one"), driver: "no-such-device" };
  await expect(hotplug.plugUnnoticed(unknown, "one")).rejects.toMatchObject({ class: "GenericError" });
  const elsewhere = hotplug.plugUnnoticed(device("second", "two"), "one");
  await expect(elsewhere).rejects.toThrow("QEMU's hot-plug registers: expected a device in the only slot, got");
  await qmp.close();
});
