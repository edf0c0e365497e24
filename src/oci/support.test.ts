import { describe, expect, test } from "vitest";
import { propertiesOf } from "../narrow.ts";
import { defaultSpec } from "./default-spec.ts";
import { spec as specReader } from "./readers/spec.ts";
import type { Circumstances } from "./support/finding.ts";
import { fieldRules, judge, judgeProcess, judgeUpdate, refuseUnsupported } from "./support.ts";
import type { Linux, Process, Spec } from "./types.ts";

const none: Circumstances = { bundle: "/b", sources: new Map() };
const withLinux = (linux: Partial<Linux>): Spec => ({ ...defaultSpec, linux: { ...defaultSpec.linux, ...linux } });
const withProcess = (process: Partial<Process>): Spec => ({ ...defaultSpec, process: { ...defaultSpec.process, ...process } });
const lines = (spec: Spec, circumstances: Partial<Circumstances> = {}) =>
  judge(spec, { ...none, ...circumstances }).map(({ verdict, path, reason }) => `${verdict}: ${path}: ${reason}`);

describe("the table", () => {
  test("has a row for every field that the readers take", () => {
    const rows = fieldRules.map(({ field }) => field);
    const covered = (path: string) => rows.some((row) => path === row || path.startsWith(`${row}.`) || path.startsWith(`${row}[]`));
    expect(propertiesOf(specReader).filter((path) => !covered(path))).toEqual([]);
  });

  test("gives a reason wherever a field is not simply honoured", () => {
    const silent = fieldRules.filter(({ place, reason, check }) => ["boundary", "ignored", "refused"].includes(place) && !reason && !check);
    expect(silent).toEqual([]);
  });
});

describe("refused by name", () => {
  test.each<[string, Spec, string]>([
    ["intelRdt", withLinux({ intelRdt: { closID: "x" } }), "linux.intelRdt: the host's resctrl groups cannot hold processes of a guest"],
    [
      "netDevices",
      withLinux({ netDevices: { eth0: {} } }),
      "linux.netDevices: a network device of the host cannot be moved into a virtual machine",
    ],
    [
      "SCMP_ACT_NOTIFY",
      withLinux({ seccomp: { defaultAction: "SCMP_ACT_ALLOW", syscalls: [{ names: ["mount"], action: "SCMP_ACT_NOTIFY" }] } }),
      "linux.seccomp.syscalls[0].action: SCMP_ACT_NOTIFY: a seccomp notification cannot leave the virtual machine",
    ],
    [
      "personality flags",
      withLinux({ personality: { domain: "LINUX", flags: ["ADDR_NO_RANDOMIZE"] } }),
      "linux.personality.flags: no flags are supported",
    ],
    [
      "weights of leaves",
      withLinux({ resources: { blockIO: { leafWeight: 0, weightDevice: [{ major: 8, minor: 0, leafWeight: 10 }] } } }),
      "linux.resources.blockIO.weightDevice[0].leafWeight: the host's schedulers of block I/O know no weights of leaves",
    ],
    [
      "network classes",
      withLinux({ resources: { network: { classID: 1 } } }),
      "linux.resources.network.classID: cgroup v2, which the guest has, knows no network classes",
    ],
    [
      "real-time groups",
      withLinux({ resources: { cpu: { realtimeRuntime: 950000 } } }),
      "linux.resources.cpu.realtimeRuntime: cgroup v2, which the guest has, knows no real-time groups",
    ],
    [
      "no out-of-memory killer",
      withLinux({ resources: { memory: { disableOOMKiller: true } } }),
      "linux.resources.memory.disableOOMKiller: cgroup v2, which the guest has, cannot switch it off",
    ],
    ["a command line of Windows", withProcess({ commandLine: "cmd.exe" }), "process.commandLine: it is Windows' own"],
    ["other systems", { ...defaultSpec, windows: { layerFolders: ["C:"] } }, "windows: the guest is Linux"],
    [
      "devices of the host",
      withLinux({ devices: [{ path: "/dev/kvm", type: "c", major: 10, minor: 232 }] }),
      "linux.devices[0]: /dev/kvm (c 10:232) is a device of the host, which the guest does not have",
    ],
    [
      "a disk, even by the numbers of a character device",
      withLinux({ devices: [{ path: "/dev/x", type: "b", major: 1, minor: 3 }] }),
      "linux.devices[0]: /dev/x (b 1:3) is a device of the host, which the guest does not have",
    ],
    [
      "a mount, by its index",
      { ...defaultSpec, mounts: [{ destination: "/x", type: "nfs", source: "a:/b" }] },
      "mounts[0]: the file system nfs cannot be mounted in the guest: what it stands on is the host's; mount it there, and bind the folder",
    ],
  ])("%s", (_, spec, expected) => {
    expect(lines(spec)).toEqual([`refused: ${expected}`]);
  });

  test("the host's own namespaces, which a missing entry asks for", () => {
    expect(lines(withLinux({ namespaces: [{ type: "mount" }, { type: "pid" }, { type: "ipc" }, { type: "uts" }] }))).toEqual([
      `refused: linux.namespaces: a VM cannot share the host's network: leave out --network host (hostNetwork of a pod), or add a namespace of type "network"`,
    ]);
    expect(lines({ ...defaultSpec, linux: {} })).toHaveLength(5);
  });

  test("namespaces of others, other than the network's", () => {
    const namespaces = (defaultSpec.linux?.namespaces ?? []).filter(({ type }) => type !== "network" && type !== "ipc");
    const spec = withLinux({
      namespaces: [{ type: "network", path: "/run/netns/x" }, { type: "ipc", path: "/proc/7/ns/ipc" }, ...namespaces],
    });
    expect(lines(spec)).toEqual([
      "refused: linux.namespaces[1].path: /proc/7/ns/ipc: only containers of the same virtual machine can share it: name the network namespace of the one that has it as well",
    ]);
    expect(lines(spec, { guestNamespace: ({ path }) => (path === "/proc/7/ns/ipc" ? "sandbox" : undefined) })).toEqual([]);
  });

  test("the vm section, unless the administrator allows it; some of it even then", () => {
    const spec: Spec = {
      ...defaultSpec,
      vm: { hypervisor: { path: "/usr/bin/qemu" }, kernel: { path: "/boot/vmlinuz", initrd: "/boot/initrd" } },
    };
    const initrd = "refused: vm.kernel.initrd: the initramfs is the one that holds husk's agent";
    expect(lines(spec)).toEqual([
      initrd,
      "refused: vm: the bundle may not choose the virtual machine; the administrator can allow it (allow.vm_section)",
    ]);
    expect(lines(spec, { allowVmSection: true })).toEqual([initrd]);
  });

  test("a system control that is the hostname, which has a field of its own", () => {
    expect(lines(withLinux({ sysctl: { "kernel.hostname": "x", "kernel.shmmax": "1" } }))).toEqual([
      'refused: linux.sysctl["kernel.hostname"]: it conflicts with the field hostname, which is for that',
    ]);
  });

  test("annotations of husk's own, unless the administrator allows them", () => {
    const spec: Spec = { ...defaultSpec, annotations: { "io.husk.memory": "1GiB", "io.husk.x": "1", "com.example/io.husk.": "x" } };
    const unknown = 'refused: annotations["io.husk.x"]: husk knows io.husk.vcpus, io.husk.memory, io.husk.tenant alone';
    expect(lines(spec)).toEqual([
      'refused: annotations["io.husk.memory"]: the administrator does not allow it (allow.annotations)',
      unknown,
    ]);
    expect(lines(spec, { allowedAnnotations: ["io.husk.memory", "io.husk.x"] })).toEqual([unknown]);
  });
});

describe("subsumed or without effect, and said so", () => {
  test.each<[string, Spec, string]>([
    [
      "AppArmor",
      withProcess({ apparmorProfile: "docker-default" }),
      "process.apparmorProfile: the profile guards the host, which the container does not reach",
    ],
    [
      "SELinux",
      withProcess({ selinuxLabel: "a:b:c" }),
      "process.selinuxLabel: the label guards the host, which the container does not reach",
    ],
    ["mount labels", withLinux({ mountLabel: "a:b:c" }), "linux.mountLabel: the label guards the host, which the container does not reach"],
    ["swap", withLinux({ resources: { memory: { swap: 1 } } }), "linux.resources.memory.swap: the guest has no swap"],
    [
      "kernel memory",
      withLinux({ resources: { memory: { kernel: 1 } } }),
      "linux.resources.memory.kernel: it is deprecated, and cgroup v2 does not have it",
    ],
    [
      "a seccomp listener that hears nothing",
      withLinux({ seccomp: { defaultAction: "SCMP_ACT_ALLOW", listenerPath: "/run/x" } }),
      "linux.seccomp.listenerPath: nothing sends a seccomp notification, since SCMP_ACT_NOTIFY is refused",
    ],
    [
      "files of swap",
      withLinux({ resources: { unified: { "memory.swap.max": "0", "memory.high": "1" } } }),
      'linux.resources.unified["memory.swap.max"]: the guest has no swap',
    ],
  ])("%s", (_, spec, expected) => {
    expect(lines(spec)).toEqual([`noted: ${expected}`]);
  });

  test("the host's devices in a privileged container's bundle", () => {
    const devices = Array.from({ length: 8 }, (_, index) => ({ path: `/dev/tty${index}`, type: "c" as const, major: 4, minor: index }));
    const privileged = withLinux({
      devices,
      resources: {
        devices: [
          { allow: false, access: "rwm" },
          { allow: true, access: "rwm" },
        ],
      },
    });
    expect(lines(privileged)).toEqual([
      "noted: linux.devices: the host's devices stay on the host: /dev/tty0, /dev/tty1, /dev/tty2, /dev/tty3, /dev/tty4 and 3 more",
    ]);
    expect(
      lines(
        withLinux({
          devices,
          resources: {
            devices: [
              { allow: true, access: "rwm" },
              { allow: false, access: "rwm" },
            ],
          },
        }),
      ),
    ).toHaveLength(8);
  });
});

describe("honoured without a word", () => {
  test.each<[string, Spec]>([
    ["hooks", { ...defaultSpec, hooks: { prestart: [{ path: "/x" }], createContainer: [{ path: "/y" }] } }],
    [
      "zeros that programs in Go write for nothing",
      withLinux({ resources: { cpu: { realtimeRuntime: 0, shares: 0 }, blockIO: { weight: 0 }, network: {} } }),
    ],
    ["empty labels", withProcess({ apparmorProfile: "", selinuxLabel: "" })],
    [
      "devices that every Linux has",
      withLinux({
        devices: [
          { path: "/dev/fuse", type: "c", major: 10, minor: 229 },
          { path: "/dev/pipe", type: "p" },
        ],
      }),
    ],
    ["the personality of 32 bits", withLinux({ personality: { domain: "LINUX32" } })],
    ["others' annotations", { ...defaultSpec, annotations: { "run.oci.handler": "krun" } }],
  ])("%s", (_, spec) => {
    expect(lines(spec)).toEqual([]);
  });
});

test("a process of exec and resources of update are judged alike", () => {
  expect(judgeProcess(withProcess({ apparmorProfile: "p" }).process)).toMatchObject([
    { verdict: "noted", path: "process.apparmorProfile" },
  ]);
  expect(judgeUpdate({ rdma: { mlx: { hcaHandles: 1 } } })).toEqual([
    { verdict: "refused", path: "linux.resources.rdma", reason: "the guest has no RDMA devices" },
  ]);
});

test("refuseUnsupported names everything at once, and gives the notes otherwise", () => {
  const noted = judge(withLinux({ mountLabel: "l" }), none);
  expect(refuseUnsupported(noted)).toEqual(["linux.mountLabel: the label guards the host, which the container does not reach"]);
  const refused = judge({ ...withLinux({ intelRdt: { closID: "x" } }), zos: { x: 1 } }, none);
  expect(() => refuseUnsupported(refused)).toThrow(
    expect.objectContaining({
      code: "unsupported",
      message: "config.json: linux.intelRdt: the host's resctrl groups cannot hold processes of a guest; zos: the guest is Linux",
    }),
  );
});

test("capabilities that the guest's kernel does not know are named, those of an exec too", () => {
  const process = { ...defaultSpec.process, capabilities: { bounding: ["CAP_KILL", "TEST_CAP"], effective: ["CAP_MOON", "TEST_CAP"] } };
  const words = "noted: process.capabilities: ignoring unknown or unavailable capabilities: [TEST_CAP CAP_MOON]";
  expect(lines({ ...defaultSpec, process })).toContain(words);
  const [found] = judgeProcess(process);
  expect(`${found?.verdict}: ${found?.path}: ${found?.reason}`).toBe(words);
});

test("ambient capabilities that are not permitted and inheritable are named", () => {
  const capabilities = { ambient: ["CAP_KILL", "CAP_CHOWN"], permitted: ["CAP_KILL", "CAP_CHOWN"], inheritable: ["CAP_KILL"] };
  expect(lines({ ...defaultSpec, process: { ...defaultSpec.process, capabilities } })).toEqual([
    "noted: process.capabilities.ambient: can't raise ambient capability CAP_CHOWN: it is not both permitted and inheritable",
  ]);
});
