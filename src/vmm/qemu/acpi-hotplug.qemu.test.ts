/** The registers of a real QEMU's machine, which stands still. */
import { afterEach, expect, test } from "vitest";
import { endQemus, startQemu } from "../../qmp/started-qemu.ts";
import { eject, forgetInsertion } from "./acpi-hotplug.ts";

afterEach(endQemus);

const ports = ["one", "two"].flatMap((id, index) => ["-device", `pcie-root-port,id=${id},chassis=${index + 1}`]);

async function machine() {
  const { qmp } = await startQemu("-machine", "q35", "-accel", "tcg", "-m", "32M", ...ports);
  const plug = (id: string, bus: string) => qmp.execute("device_add", { driver: "virtio-rng-pci", id, bus });
  const type = (id: string) => qmp.execute("qom-get", { path: `/machine/peripheral/${id}`, property: "type" });
  return { qmp, plug, type };
}

test("a device in a port is ejected, and no other", async () => {
  const { qmp, plug, type } = await machine();
  await plug("first", "one");
  await plug("second", "two");
  await eject(qmp, "two");
  await expect(type("second")).rejects.toMatchObject({ class: "DeviceNotFound" });
  expect(await type("first")).toBe("virtio-rng-pci");
  await plug("third", "two"); // the port is free again
  await qmp.close();
});

test("the event of an insertion is taken back, and no other's", async () => {
  const { qmp, plug } = await machine();
  await plug("first", "one");
  await forgetInsertion(qmp, "one");
  await expect(forgetInsertion(qmp, "one")).rejects.toThrow("QEMU's hot-plug registers: expected a device in the only slot, got");
  await plug("second", "two");
  await forgetInsertion(qmp, "two");
  await qmp.close();
});
