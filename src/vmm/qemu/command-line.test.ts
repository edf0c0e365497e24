import { expect, test } from "vitest";
import type { Machine } from "../machine.ts";
import { pluggedDevices, qemuArguments } from "./command-line.ts";
import { qemuProgram } from "./program.ts";

const mebibyte = 1024 * 1024;

const machine: Machine = {
  accelerator: "tcg",
  vcpus: 2,
  memory: { kind: "own", bytes: 256 * mebibyte, descriptor: 12, folders: [] },
  limits: { vcpus: 2, memoryBytes: 256 * mebibyte },
  origin: { kind: "boot", image: { flavour: "own", kernel: "/guest/kernel", initramfs: "/guest/initramfs" } },
  channel: { kind: "serial", descriptor: 6 },
  disks: [],
  networkPorts: 1,
  devicePorts: 0,
  controlDescriptor: 4,
  consoleDescriptor: 5,
  translationBufferBytes: 64 * mebibyte,
  kernelParameters: [],
};

/** The values given to an option, in order. */
function values(args: readonly string[], option: string): string[] {
  return args.flatMap((arg, index) => (arg === option ? [args[index + 1] ?? ""] : []));
}

test("a broken-out QEMU may start nothing, become nobody and use nothing obsolete", () => {
  expect(values(qemuArguments(machine), "-sandbox")).toEqual(["on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny"]);
});

test("no device is there that was not asked for", () => {
  const args = qemuArguments(machine);
  expect(args).toContain("-nodefaults");
  expect(args).toContain("-no-user-config");
});

test("QMP and the console go over inherited descriptors, never over a path", () => {
  const chardevs = values(qemuArguments(machine), "-chardev");
  expect(chardevs).toContain("socket,id=control,fd=4");
  expect(chardevs).toContain("socket,id=console,fd=5");
  expect(chardevs.join(" ")).not.toContain("path=");
});

test("KVM gets the host's processor, TCG the most that it can emulate and a bounded translation buffer", () => {
  const kvm = qemuArguments({ ...machine, accelerator: "kvm" });
  expect([values(kvm, "-accel"), values(kvm, "-cpu")]).toEqual([["kvm"], ["host"]]);
  const tcg = qemuArguments(machine);
  expect([values(tcg, "-accel"), values(tcg, "-cpu")]).toEqual([["tcg,thread=multi,tb-size=64"], ["max,-erms,-fsrm"]]);
});

test("whether it boots or goes on, a machine has a generation of its own", () => {
  for (const kind of ["restore", "resume"] as const) {
    expect(values(qemuArguments({ ...machine, origin: { kind } }), "-device")).toContain("vmgenid,guid=auto");
  }
  expect(values(qemuArguments(machine), "-device")).toContain("vmgenid,guid=auto");
});

test("a shared folder comes with RAM of the machine's own", () => {
  const shared = qemuArguments({
    ...machine,
    memory: { kind: "own", bytes: 256 * mebibyte, descriptor: 12, folders: [{ tag: "husk", socket: "/run/s" }] },
  });
  expect(values(shared, "-object")).toEqual([`memory-backend-file,id=ram,size=${256 * mebibyte},share=on,mem-path=/proc/self/fd/12`]);
  expect(values(shared, "-device").some((device) => device.startsWith("vhost-user-fs-pci,id=folder0,chardev=fs0,tag=husk"))).toBe(true);
});

test("QEMU is told the same of a template's RAM as of its own, which keeps both out of a saved state; its mapping is made private from the outside", () => {
  const template: Machine = { ...machine, memory: { kind: "template", bytes: 256 * mebibyte, descriptor: 12 } };
  expect(qemuArguments(template)).toEqual(qemuArguments(machine));
  const programs = [template, machine].map((each) => qemuProgram("/usr/bin/qemu", each, [4, 5, 12]));
  expect(programs.map(({ privateMemory }) => privateMemory)).toEqual([true, undefined]);
  expect(programs[0]).toMatchObject({ name: "qemu", user: "user", fds: [4, 5, 12] });
});

test("a machine that can grow has room for processors, a port for memory, and a kernel that takes it as it comes; another has nothing of it", () => {
  const growing = qemuArguments({ ...machine, limits: { vcpus: 4, memoryBytes: 1024 * mebibyte } });
  expect(values(growing, "-smp")).toEqual(["2,maxcpus=4"]);
  expect(values(growing, "-m")).toEqual(["256M,maxmem=1024M"]);
  expect(values(growing, "-device")).toContain("pcie-root-port,id=memory-port,chassis=2");
  expect(values(growing, "-append")[0]).toContain("memhp_default_state=online");
  const fixed = qemuArguments(machine);
  expect([values(fixed, "-smp"), values(fixed, "-m")]).toEqual([["2"], ["256M"]]);
  expect(fixed.join(" ")).not.toMatch(/memory-port|memhp/);
});

test("the guest is told where its channel is", () => {
  const [serial] = values(qemuArguments(machine), "-append");
  expect(serial?.split(" ")).toContain("husk.channel=serial");
  const vsock = qemuArguments({ ...machine, channel: { kind: "vsock", cid: 70000, port: 70001 } });
  expect(values(vsock, "-append")[0]?.split(" ")).toContain("husk.channel=vsock:70001");
  expect(values(vsock, "-device")).toContain("vhost-vsock-pci,guest-cid=70000");
});

test("disks are inherited, by descriptor sets, and known by their serial", () => {
  const args = qemuArguments({
    ...machine,
    disks: [
      { serial: "root", descriptor: 8, isDevice: false, readonly: true },
      { serial: "data", descriptor: 9, isDevice: true, readonly: false },
    ],
  });
  expect(values(args, "-add-fd")).toEqual(["fd=8,set=1", "fd=9,set=2"]);
  expect(values(args, "-blockdev")).toEqual([
    "driver=raw,node-name=disk0,discard=unmap,read-only=on,file.driver=file,file.filename=/dev/fdset/1",
    "driver=raw,node-name=disk1,discard=unmap,read-only=off,file.driver=host_device,file.filename=/dev/fdset/2",
  ]);
  expect(values(args, "-device")).toContain("virtio-blk-pci,drive=disk0,serial=root");
});

test("a restored machine needs nothing that it was booted from, and gets its devices at ports that the template has", () => {
  const restored: Machine = {
    ...machine,
    origin: { kind: "restore" },
    memory: { kind: "own", bytes: 256 * mebibyte, descriptor: 12, folders: [{ tag: "husk", socket: "/run/s" }] },
    disks: ["root", "other"].map((serial, index) => ({ serial, descriptor: 8 + index, isDevice: false, readonly: true })),
    devicePorts: 3,
  };
  const args = qemuArguments(restored);
  expect(args.join(" ")).not.toMatch(/-kernel|-initrd|-append|vhost-user-fs|virtio-blk/);
  expect(values(args, "-incoming")).toEqual(["defer"]);
  expect(values(args, "-object")).toEqual([`memory-backend-file,id=ram,size=${256 * mebibyte},share=on,mem-path=/proc/self/fd/12`]);
  expect(values(args, "-chardev")).toContain("socket,id=fs0,path=/run/s");
  expect(pluggedDevices(restored)).toEqual({
    known: [
      { driver: "vhost-user-fs-pci", id: "folder0", chardev: "fs0", tag: "husk", "queue-size": 1024, bus: "device-port0" },
      { driver: "virtio-blk-pci", drive: "disk0", serial: "root", bus: "device-port1" },
    ],
    added: [{ driver: "virtio-blk-pci", drive: "disk1", serial: "other", bus: "device-port2" }],
  });
  expect(() => pluggedDevices({ ...restored, devicePorts: 2 })).toThrow("1 folders and 2 disks are more than 2 ports are for");
});

test("a machine that goes on from a checkpoint has its devices from the beginning, where they were", () => {
  const disks = [{ serial: "root", descriptor: 8, isDevice: false, readonly: true }];
  const device = "virtio-blk-pci,drive=disk0,serial=root";
  const cloned = qemuArguments({ ...machine, origin: { kind: "resume" }, disks, devicePorts: 2 });
  expect(cloned.join(" ")).not.toMatch(/-kernel|-initrd|-append/);
  expect(values(cloned, "-incoming")).toEqual(["defer"]);
  expect(values(cloned, "-device").at(-1)).toBe(`${device},bus=device-port1`);
  const memory = { kind: "own", bytes: 256 * mebibyte, descriptor: 12, folders: [{ tag: "husk", socket: "/run/s" }] } as const;
  const sharing = qemuArguments({ ...machine, origin: { kind: "resume" }, memory, disks, devicePorts: 2 });
  // All but the folder's, with which QEMU gives no machine its state.
  expect(values(sharing, "-device")).toEqual(values(cloned, "-device"));
  expect(values(sharing, "-chardev")).toContain("socket,id=fs0,path=/run/s");
  const booted = { ...machine, disks };
  const fixed = values(qemuArguments(booted), "-device");
  expect(fixed).toContain(device);
  expect(values(qemuArguments({ ...booted, origin: { kind: "resume" } }), "-device")).toEqual(fixed);
});

test("a template's own devices are in the same places as its clones'", () => {
  const fixed = (args: readonly string[]): string[] =>
    values(args, "-device").filter((device) => !/^(vhost-user-fs|virtio-blk)/.test(device));
  const template: Machine = {
    ...machine,
    memory: { kind: "own", bytes: 256 * mebibyte, descriptor: 12, folders: [{ tag: "husk", socket: "/run/s" }] },
    devicePorts: 2,
  };
  if (machine.origin.kind !== "boot") throw new Error("a template is booted");
  const args = qemuArguments({ ...template, origin: { ...machine.origin, parks: true } });
  expect(fixed(qemuArguments({ ...template, origin: { kind: "restore" } }))).toEqual(fixed(args));
  // The folder's device and a first disk's are there in the template until its guest has let go of them.
  expect(values(args, "-device")).toContain("virtio-blk-pci,drive=stand-in,bus=device-port1");
  expect(values(args, "-blockdev")).toEqual(["driver=null-co,node-name=stand-in,size=65536,read-zeroes=on"]);
  expect(values(args, "-append").join()).toContain(" husk.park");
  expect(values(qemuArguments(machine), "-append").join()).not.toContain("husk.park");
  // Another machine that is booted with ports has its own devices alone in them, and keeps them.
  const own = qemuArguments(template);
  expect(fixed(own)).toEqual(fixed(args));
  expect(own.join(" ")).not.toMatch(/stand-in|husk\.park/);
  expect(values(own, "-device").at(-1)).toBe("vhost-user-fs-pci,id=folder0,chardev=fs0,tag=husk,queue-size=1024,bus=device-port0");
});
