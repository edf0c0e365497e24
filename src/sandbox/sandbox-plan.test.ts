import { expect, test } from "vitest";
import type { Template } from "../template/store.ts";
import type { Zygote } from "../template/zygote.ts";
import { planMachine, planResumed, planSandbox, type SandboxSpec, sharedFolders } from "./sandbox-plan.ts";

const spec: SandboxSpec = {
  id: "a",
  hostname: "husk",
  programs: { helper: "/opt/husk/helper", qemu: "/usr/bin/qemu-system-x86_64", virtiofsd: "/usr/lib/qemu/virtiofsd", virtiofsdKind: "c" },
  image: { flavour: "own", kernel: "/cache/kernel", initramfs: "/cache/initramfs" },
  accelerator: "tcg",
  channel: "serial",
  template: null,
  vhostNet: false,
  vcpus: 1,
  memoryBytes: 256 * 1024 * 1024,
  translationBufferBytes: 64 * 1024 * 1024,
  limits: { vcpus: 1, memoryBytes: 256 * 1024 * 1024 },
  networkPorts: 1,
  guestConsoleBytes: 1000,
  kernelParameters: [],
  tenant: "",
  netns: null,
  cgroups: ["/sys/fs/cgroup/husk-a"],
  shares: true,
  mounts: [{ source: "/b/rootfs", target: "a/rootfs", readonly: false }],
  disks: [],
  agentSocket: "/run/husk/a/agent.sock",
  remains: [],
  consoleLog: "/run/husk/a/console.log",
  deadlines: { bootMs: 1000, callMs: 1000 },
};

test("QEMU runs as a user that no other live sandbox has", () => {
  expect(planSandbox(spec, 1234).user).toEqual({ uid: 0x70000000 + 1234, gid: 0x70000000 + 1234 });
  expect(planSandbox(spec, 1235).user.uid).not.toBe(planSandbox(spec, 1234).user.uid);
});

test("a folder needs virtiofsd, which is given to QEMU as a socket that listens before either runs", () => {
  const plan = planSandbox(spec, 1);
  const [virtiofsd, qemu] = plan.processes;
  expect(virtiofsd).toMatchObject({ name: "virtiofsd", user: "root", socket: "/run/shares.sock" });
  expect(virtiofsd?.argv).toContain(`--fd=${virtiofsd?.socketFd}`);
  expect(qemu).toMatchObject({ name: "qemu", user: "user" });
  expect(qemu?.argv.join(" ")).toContain("path=/run/shares.sock");
  expect(sharedFolders(spec)).toEqual([{ tag: "husk", mountPoint: "/run/husk/shared" }]);
});

test("a disk alone needs no virtiofsd, and is opened for writing only where it may be written", () => {
  const disk = { serial: "root", path: "/images/root.ext4", isDevice: false, readonly: true };
  const plan = planSandbox({ ...spec, shares: false, mounts: [], disks: [disk] }, 1);
  expect(plan.processes.map(({ name }) => name)).toEqual(["qemu"]);
  expect(plan.open.slice(2)).toEqual([{ fd: 17, path: "/images/root.ext4", write: false }]);
  expect(plan.processes[0]?.fds).toContain(17);
  expect(plan.monitor).toBeUndefined();
  expect(sharedFolders({ ...spec, shares: false })).toEqual([]);
});

test("over vsock a relay listens in QEMU's stead, and QEMU never holds the agent's socket", () => {
  const plan = planSandbox({ ...spec, channel: "vsock" }, 100);
  const [relay, , qemu] = plan.processes;
  expect(relay?.argv).toEqual(["/opt/husk/helper", "vsock", "--port", "65636", "--cid", "65636", "--fd", "6"]);
  expect(relay?.fds).toEqual([6]);
  expect(qemu?.fds).not.toContain(6);
  expect(plan.tree.devices).toContain("vhost-vsock");
});

test("QEMU gets the guest image as descriptors, and has no path to it, nor to anything of the container's", () => {
  const { tree, open, processes } = planSandbox(spec, 1);
  expect(open).toEqual([
    { fd: 8, path: "/cache/kernel", write: false },
    { fd: 9, path: "/cache/initramfs", write: false },
  ]);
  expect(processes.at(-1)?.argv.join(" ")).toContain("-kernel /proc/self/fd/8 -initrd /proc/self/fd/9");
  expect(tree.readonly.some((path) => path.startsWith("/b/") || path.startsWith("/cache"))).toBe(false);
});

const template: Template = {
  key: "k",
  folder: "/t/k",
  ram: "/t/k/ram",
  state: "/t/k/state",
  manifest: { machine: "m", createdAt: "", ramBytes: spec.memoryBytes, ramChanged: "1", ramSum: "0a0b0c0d", stateSha256: "ab".repeat(32) },
};

test("a clone that shares folders copies its template's memory itself, and QEMU sees the copy and the state alone", () => {
  const { open, memory, processes } = planSandbox({ ...spec, template }, 1);
  expect(open).toEqual([
    { fd: 10, path: "/t/k/ram", write: false },
    { fd: 12, path: "/t/k/state", write: false },
  ]);
  expect(memory).toEqual([{ fd: 11, bytes: spec.memoryBytes }]);
  const [copy, , qemu] = processes;
  expect(copy?.argv).toEqual(["/opt/husk/helper", "template", "copy", "--from", "10", "--to", "11", "--sum", "0a0b0c0d"]);
  expect(copy).toMatchObject({ user: "user", fds: [10, 11] });
  expect(qemu?.fds).toEqual([4, 5, 11, 12, 6, 15]);
  expect(qemu?.argv.join(" ")).not.toMatch(/-kernel|vhost-user-fs-pci/);
  expect(qemu).not.toHaveProperty("privateMemory");
});

test("a clone that shares nothing copies nothing: it has the template's memory with all others, and QEMU maps it privately", () => {
  const { open, memory, processes } = planSandbox({ ...spec, template, shares: false, mounts: [] }, 1);
  expect(open).toEqual([{ fd: 12, path: "/t/k/state", write: false }]);
  const name = "husk-k-0a0b0c0d-abababababababab";
  expect(memory).toEqual([
    { fd: 11, bytes: spec.memoryBytes, template: { name, ram: "/t/k/ram", sum: "0a0b0c0d", record: "/t/k/holder" } },
  ]);
  expect(processes).toMatchObject([{ name: "qemu", fds: [4, 5, 11, 12, 6, 15], privateMemory: true }]);
});

const zygote: Zygote = {
  process: { pid: 7, start: 1 },
  socket: "/t/k/zygote/zygote.sock",
  memory: "/proc/7/fd/11",
  sum: "00c0ffee",
  disks: [20, 21],
  greeting: { version: { qemu: { major: 7, minor: 2, micro: 22 }, package: "" }, capabilities: [] },
};

test("a zygote's copy that shares folders has memory of its own, filled from the zygote's, and nothing of the template's", () => {
  const { dial, open, memory, monitor, processes } = planSandbox({ ...spec, template, zygote }, 1);
  expect(dial).toEqual([{ fd: 13, path: zygote.socket }]);
  expect(open).toEqual([{ fd: 10, path: zygote.memory, write: false }]);
  expect(memory).toEqual([{ fd: 11, bytes: spec.memoryBytes }]);
  const [copy, , qemu] = processes;
  expect(copy?.argv).toEqual(["/opt/husk/helper", "template", "copy", "--from", "10", "--to", "11", "--sum", "00c0ffee"]);
  expect(qemu).toMatchObject({ fds: [4, 5, 11, 6, 15], copy: { from: 13, memory: 11, places: [] } });
  expect(monitor).toBe(15);
});

test("a zygote's copy that shares nothing has the zygote's memory, and its disks where the zygote has stand-ins", () => {
  const disk = { serial: "root", path: "/images/root", isDevice: false, readonly: false };
  const own = { ...spec, template, zygote, shares: false, mounts: [], disks: [disk, { ...disk, serial: "other" }] };
  const { open, memory, processes } = planSandbox(own, 1);
  expect([open.map(({ fd, write }) => [fd, write]), memory]).toEqual([
    [
      [17, true],
      [18, true],
    ],
    [],
  ]);
  expect(processes).toMatchObject([
    {
      name: "qemu",
      fds: [4, 5, 6, 15],
      copy: {
        from: 13,
        places: [
          [17, 20],
          [18, 21],
        ],
      },
    },
  ]);
  // With more disks than it has stand-ins for, a sandbox is cloned from the template.
  const cloned = planSandbox({ ...own, disks: [disk, disk, disk] }, 1);
  expect(cloned.dial).toEqual([]);
  expect(cloned.processes[0]).not.toHaveProperty("copy");
});

test("a machine that becomes a zygote listens for packets, and has stand-ins for the disks of its copies", () => {
  const plan = planSandbox({ ...spec, template, zygoteSocket: "/t/k/zygote/zygote.sock" }, 1);
  expect(plan.zygote).toBe(true);
  expect(plan.listen.slice(1)).toEqual([{ fd: 13, path: "/t/k/zygote/zygote.sock", packets: true }]);
  const qemu = plan.processes.at(-1);
  expect(qemu).toMatchObject({ zygote: 13, fds: [4, 5, 11, 12, 6, 13, 14, 15] });
  expect(qemu?.argv.join(" ")).toContain("-chardev socket,id=monitor,fd=15 -mon chardev=monitor,mode=control");
  expect(qemu?.argv.filter((word) => word.startsWith("fd="))).toEqual(["fd=14,set=101", "fd=14,set=102", "fd=14,set=103"]);
});

test("a checkpoint of a clone that maps its template goes on in memory of its own", () => {
  const cloned = { ...spec, template, shares: false, mounts: [] };
  expect(planMachine(cloned, 0).memory).toEqual({ kind: "template", bytes: spec.memoryBytes, descriptor: 11 });
  expect(planResumed(cloned).memory).toEqual({ kind: "own", bytes: spec.memoryBytes, descriptor: 11, folders: [] });
});
