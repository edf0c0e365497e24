import { expect, test } from "vitest";
import type { Template } from "../template/store.ts";
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
  expect(plan.open.slice(2)).toEqual([{ fd: 13, path: "/images/root.ext4", write: false }]);
  expect(plan.processes[0]?.fds).toContain(13);
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
  expect(qemu?.fds).toEqual([4, 5, 11, 12, 6]);
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
  expect(processes).toMatchObject([{ name: "qemu", fds: [4, 5, 11, 12, 6], privateMemory: true }]);
});

test("a checkpoint of a clone that maps its template goes on in memory of its own", () => {
  const cloned = { ...spec, template, shares: false, mounts: [] };
  expect(planMachine(cloned, 0).memory).toEqual({ kind: "template", bytes: spec.memoryBytes, descriptor: 11 });
  expect(planResumed(cloned).memory).toEqual({ kind: "own", bytes: spec.memoryBytes, descriptor: 11, folders: [] });
});
