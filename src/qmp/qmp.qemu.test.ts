/** The client against a real QEMU that emulates no machine: it needs no root, no kernel and no accelerator, and starts in some 30 ms. */
import { afterEach, describe, expect, test } from "vitest";
import { QmpError } from "./qmp.ts";
import { endQemus, startQemu } from "./started-qemu.ts";

afterEach(endQemus);

describe("a QEMU without a machine", () => {
  test("greets, tells its version and its state", async () => {
    const { qmp } = await startQemu("-machine", "none");
    const version = await qmp.execute("query-version");
    expect(version).toEqual(qmp.greeting.version);
    expect(version.qemu.major).toBeGreaterThanOrEqual(7);
    expect(qmp.greeting.capabilities).toContain("oob");
    expect(await qmp.execute("query-status")).toEqual({ running: false, status: "prelaunch" });
    await qmp.close();
  });

  test("refuses with its own class and words", async () => {
    const { qmp } = await startQemu("-machine", "none");
    const unknown = await qmp.executeRaw("no-such-command").catch((error: unknown) => error);
    expect(unknown).toBeInstanceOf(QmpError);
    expect(unknown).toMatchObject({
      code: "vmm",
      class: "CommandNotFound",
      command: "no-such-command",
      message: "QEMU refused no-such-command: The command no-such-command has not been found",
    });
    const refused = await qmp.execute("device_del", { id: "nic1" }).catch((error: unknown) => error);
    expect(refused).toMatchObject({ class: "DeviceNotFound", message: "QEMU refused device_del: Device 'nic1' not found" });
  });

  test("answers every query that it knows in the shape that we read", async () => {
    const { qmp } = await startQemu("-machine", "none", "-object", "memory-backend-ram,id=ram,size=1M");
    expect(await qmp.execute("query-kvm")).toMatchObject({ enabled: false });
    expect((await qmp.execute("query-commands")).map(({ name }) => name)).toContain("device_add");
    expect(await qmp.execute("query-cpus-fast")).toEqual([]);
    expect(await qmp.execute("query-chardev")).toContainEqual(expect.objectContaining({ label: "qmp", "frontend-open": true }));
    expect(await qmp.execute("query-memory-devices")).toEqual([]);
    expect(await qmp.execute("query-memory-size-summary")).toEqual({ "base-memory": 0, "plugged-memory": 0 });
    expect(await qmp.execute("query-block")).toEqual([]);
    expect(await qmp.execute("query-pci")).toEqual([]);
    expect(await qmp.execute("query-fdsets")).toEqual([]);
    expect(await qmp.execute("query-migrate")).toEqual({});
    expect(await qmp.execute("qom-get", { path: "/objects/ram", property: "size" })).toBe(1024 * 1024);
    expect((await qmp.execute("qom-list", { path: "/objects" })).map(({ name }) => name)).toContain("ram");
    expect(await qmp.execute("human-monitor-command", { "command-line": "info status" })).toContain("paused");
  });

  test("makes and removes character devices, objects and block nodes", async () => {
    const { qmp } = await startQemu("-machine", "none");
    expect(await qmp.execute("chardev-add", { id: "c1", backend: { type: "null", data: {} } })).toEqual({});
    await qmp.execute("chardev-remove", { id: "c1" });
    await qmp.execute("object-add", { "qom-type": "memory-backend-ram", id: "m1", size: 1024 * 1024 });
    await qmp.execute("object-del", { id: "m1" });
    await qmp.execute("blockdev-add", { driver: "null-co", "node-name": "b1", size: 512 });
    await qmp.execute("blockdev-del", { "node-name": "b1" });
    await expect(qmp.execute("blockdev-del", { "node-name": "b1" })).rejects.toThrow(/^QEMU refused blockdev-del: .*b1/);
  });

  test("says that it ends, then ends, and so does the connection", async () => {
    const { qmp, exit } = await startQemu("-machine", "none");
    const data = await qmp.executeUntil("quit", {}, "SHUTDOWN", () => true);
    expect(data).toEqual({ guest: false, reason: "host-qmp-quit" });
    expect((await qmp.closed).message).toMatch(/^QEMU closed the QMP connection$|^the QMP connection broke$/);
    expect(await exit).toEqual([0, null]);
    await expect(qmp.execute("query-status")).rejects.toBe(await qmp.closed);
  });

  test("killed in the middle, rejects what is pending", async () => {
    const { qmp, exit } = await startQemu("-machine", "none");
    const event = qmp.waitFor("RESUME");
    const ended = endQemus();
    await expect(event).rejects.toMatchObject({ code: "vmm" });
    expect(await exit).toEqual([null, "SIGKILL"]);
    await ended;
  });
});

describe("a QEMU with a PCI bus and devices", () => {
  test("tells of processors, memory, PCI and block devices; stops and goes on", async () => {
    const { qmp } = await startQemu(
      "-machine",
      "q35,accel=tcg",
      "-m",
      "64",
      "-blockdev",
      "null-co,node-name=n0,size=512",
      "-device",
      "virtio-blk-pci,drive=n0,id=disk0",
    );
    const [cpu] = await qmp.execute("query-cpus-fast");
    expect(cpu).toMatchObject({ "cpu-index": 0, "qom-path": expect.any(String), "thread-id": expect.any(Number) });
    expect(await qmp.execute("query-memory-size-summary")).toEqual({ "base-memory": 64 * 1024 * 1024, "plugged-memory": 0 });
    const [bus] = await qmp.execute("query-pci");
    expect(bus?.devices).toContainEqual(expect.objectContaining({ qdev_id: "disk0" }));
    expect(await qmp.execute("query-block")).toContainEqual(
      expect.objectContaining({ inserted: expect.objectContaining({ "node-name": "n0", drv: "null-co", ro: false }) }),
    );
    const resumed = qmp.waitFor("RESUME");
    await qmp.execute("cont");
    await resumed;
    expect(await qmp.execute("query-status")).toEqual({ running: true, status: "running" });
    await qmp.executeUntil("stop", {}, "STOP", () => true);
    expect(await qmp.executeUntil("system_reset", {}, "RESET", ({ guest }) => !guest)).toEqual({
      guest: false,
      reason: "host-qmp-system-reset",
    });
    await qmp.executeUntil("quit", {}, "SHUTDOWN", () => true);
  });
});
