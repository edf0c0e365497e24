import { describe, expect, test } from "vitest";
import { defaultSpec } from "./default-spec.ts";
import { encodeForAgent, type GuestSpecOptions, guestProcess, guestResources, guestSpec } from "./guest-spec.ts";
import type { Source } from "./sources.ts";
import type { Mount, Spec } from "./types.ts";

const options: GuestSpecOptions = {
  bundle: "/b",
  sources: new Map(),
  rootPath: "/run/c1/rootfs",
  guestPath: ({ index, isFile }) => `/shared/${index}${isFile ? "/file" : ""}`,
  seccomp: null,
};

describe("bind mounts", () => {
  const mounts: readonly Mount[] = [
    { destination: "/proc", type: "proc", source: "proc" },
    { destination: "/data", type: "bind", source: "data", options: ["rbind", "ro"] },
    { destination: "etc/hosts", source: "/etc/hosts", options: ["bind"] },
  ];
  const sources = new Map<number, Source>([
    [1, { kind: "folder", realPath: "/b/data" }],
    [2, { kind: "file", realPath: "/etc/hosts" }],
  ]);

  test("become shares, and point to where the guest finds them", () => {
    const { spec, shares } = guestSpec({ ...defaultSpec, mounts }, { ...options, sources });
    expect(shares).toEqual([
      { index: 1, hostPath: "/b/data", readonly: true, isFile: false },
      { index: 2, hostPath: "/etc/hosts", readonly: false, isFile: true },
    ]);
    expect(spec.mounts).toEqual([
      mounts[0],
      { destination: "/data", type: "bind", source: "/shared/1", options: ["rbind", "ro"] },
      { destination: "/etc/hosts", type: "bind", source: "/shared/2/file", options: ["bind"] },
    ]);
  });

  test("that are read-only without the mounts below are so on the host alone", () => {
    const below = new Map(sources).set(1, { kind: "folder", realPath: "/b/data", mountsBelow: true });
    const { spec, shares } = guestSpec({ ...defaultSpec, mounts }, { ...options, sources: below });
    expect(shares[0]).toEqual({ index: 1, hostPath: "/b/data", readonly: true, isFile: false, writableBelow: true });
    expect(spec.mounts?.[1]).toEqual({ destination: "/data", type: "bind", source: "/shared/1", options: ["rbind"] });
  });

  test("that are refused are not translated", () => {
    expect(() => guestSpec({ ...defaultSpec, mounts }, options)).toThrow(
      expect.objectContaining({ code: "unsupported", message: "config.json: mounts[1]: a bind mount needs a source" }),
    );
  });
});

test("no path, label, hook or namespace of the host is left", () => {
  const spec: Spec = {
    ...defaultSpec,
    root: { path: "/host/rootfs", readonly: true },
    process: { ...defaultSpec.process, apparmorProfile: "/host/profile", selinuxLabel: "/host/label" },
    hooks: {
      prestart: [{ path: "/host/a" }],
      createRuntime: [{ path: "/host/b" }],
      createContainer: [{ path: "/guest/c" }],
      startContainer: [{ path: "/guest/d" }],
      poststart: [{ path: "/host/e" }],
      poststop: [{ path: "/host/f" }],
    },
    linux: {
      ...defaultSpec.linux,
      namespaces: [{ type: "network", path: "/host/netns" }, { type: "pid", path: "" }, { type: "ipc" }],
      cgroupsPath: "/host/cgroup",
      mountLabel: "/host/label",
      resources: { cpu: { cpus: "0-3", mems: "0", quota: 5 } },
    },
    vm: { kernel: { path: "/host/kernel" } },
  };
  const guest = guestSpec(spec, options).spec;
  expect(JSON.stringify(guest)).not.toContain("/host/");
  expect(guest.root).toEqual({ path: "/run/c1/rootfs", readonly: true });
  expect(guest.hooks).toEqual({ createContainer: [{ path: "/guest/c" }], startContainer: [{ path: "/guest/d" }] });
  expect(guest.linux?.namespaces).toEqual([{ type: "pid" }, { type: "ipc" }, { type: "cgroup" }]);
  expect(guest.linux?.resources).toEqual({ cpu: { quota: 5 } });
  expect(guest).not.toHaveProperty("vm");
});

test("all else is as the bundle has it", () => {
  const spec: Spec = { ...defaultSpec, hostname: "h", domainname: "d", annotations: { a: "b" } };
  const { linux, root: _root, ...rest } = guestSpec(spec, options).spec;
  const { linux: expected, root: _expectedRoot, ...expectedRest } = spec;
  expect(rest).toEqual(expectedRest);
  expect(linux).toEqual({ ...expected, namespaces: expected?.namespaces?.filter(({ type }) => type !== "network") });
});

test("a namespace of the sandbox is the guest's own; one of others is refused", () => {
  const spec: Spec = { ...defaultSpec, linux: { namespaces: [{ type: "ipc", path: "/proc/7/ns/ipc" }] } };
  const joined = guestSpec(spec, { ...options, guestNamespace: ({ type }) => (type === "ipc" ? "sandbox" : undefined) });
  expect(joined.spec.linux?.namespaces).toEqual([{ type: "cgroup" }]);
  expect(() => guestSpec(spec, options)).toThrow("config.json: linux.namespaces: the guest cannot join /proc/7/ns/ipc");
});

test("a namespace of another container's is joined in the guest", () => {
  const namespaces = [
    { type: "ipc", path: "/proc/7/ns/ipc" },
    { type: "network", path: "/proc/7/ns/net" },
    { type: "uts", path: "" },
  ] as const;
  const joined = guestSpec({ ...defaultSpec, linux: { namespaces } }, { ...options, guestNamespace: () => ({ container: "seven" }) });
  expect(joined.spec.linux?.namespaces).toEqual([{ type: "ipc", path: "container:seven" }, { type: "uts" }, { type: "cgroup" }]);
});

test("shared memory from a tmpfs of the host is where the sandbox has it for all who bind that", () => {
  const mounts: readonly Mount[] = [{ destination: "/dev/shm", type: "bind", source: "/run/x/shm", options: ["bind", "rw"] }];
  const sources = new Map<number, Source>([[0, { kind: "folder", realPath: "/run/x/shm", tmpfsBytes: 1024 * 1024 }]]);
  const guestMemory = (hostPath: string, asked: readonly string[]) => `/memory of ${hostPath} (${asked.join()})`;
  const { spec } = guestSpec({ ...defaultSpec, mounts }, { ...options, sources, guestMemory });
  expect(spec.mounts).toEqual([
    {
      destination: "/dev/shm",
      type: "bind",
      source: "/memory of /run/x/shm (mode=1777,size=1024k)",
      options: ["bind", "nosuid", "noexec", "nodev"],
    },
  ]);
});

test("a mount of which the guest has nothing is left out, and the indexes of the others stay", () => {
  const mounts: readonly Mount[] = [
    { destination: "/sys/fs/cgroup/systemd", type: "bind", source: "/sys/fs/cgroup/systemd" },
    { destination: "/data", type: "bind", source: "/srv" },
  ];
  const sources = new Map<number, Source>([
    [0, { kind: "folder", realPath: "/sys/fs/cgroup/systemd" }],
    [1, { kind: "folder", realPath: "/srv" }],
  ]);
  const { spec, shares } = guestSpec({ ...defaultSpec, mounts }, { ...options, sources });
  expect(spec.mounts).toEqual([{ destination: "/data", type: "bind", source: "/shared/1" }]);
  expect(shares).toMatchObject([{ index: 1, hostPath: "/srv" }]);
});

test("a device's mode is permissions alone", () => {
  const fuse = { path: "/dev/fuse", type: "c", major: 10, minor: 229, fileMode: 0o20600 } as const;
  expect(guestSpec({ ...defaultSpec, linux: { devices: [fuse] } }, options).spec.linux?.devices).toEqual([{ ...fuse, fileMode: 0o600 }]);
});

test("of a privileged container's devices, the guest gets those that it has", () => {
  const fuse = { path: "/dev/fuse", type: "c", major: 10, minor: 229 } as const;
  const linux = {
    devices: [fuse, { path: "/dev/sda", type: "b", major: 8, minor: 0 } as const],
    resources: { devices: [{ allow: true }] },
  };
  expect(guestSpec({ ...defaultSpec, linux }, options).spec.linux?.devices).toEqual([fuse]);
});

test("resources lose what is the host's, what cgroup v2 lacks, and zeros that mean nothing", () => {
  expect(
    guestResources({
      devices: [{ allow: false }],
      memory: { limit: 1, swap: 2, swappiness: 60, kernel: 3, kernelTCP: 4, reservation: 0, disableOOMKiller: false },
      cpu: { shares: 0, quota: -1, period: 100_000, cpus: "0", mems: "0", realtimePeriod: 0, realtimeRuntime: 0 },
      pids: { limit: 0 },
      blockIO: { weight: 0 },
      unified: { "memory.swap.max": "0", "memory.high": "max" },
    }),
  ).toEqual({ devices: [{ allow: false }], memory: { limit: 1 }, cpu: { quota: -1, period: 100_000 }, unified: { "memory.high": "max" } });
  expect(guestResources({ pids: { limit: -1 } })).toEqual({ pids: { limit: -1 } });
  expect(guestResources({ cpu: { idle: 0, shares: 0 } })).toEqual({ cpu: { idle: 0 } });
});

test("a variable that is given twice has its last value, and no other", () => {
  const env = ["A=1", "PATH=/bin", "A=", "B", "B=2=3", "A=4"];
  expect(guestProcess({ ...defaultSpec.process, env }).env).toEqual(["PATH=/bin", "B=2=3", "A=4"]);
});

test("processes lose the labels that guard the host", () => {
  const { process } = defaultSpec;
  expect(guestProcess({ ...process, apparmorProfile: "a", selinuxLabel: "s" })).toEqual(process);
});

test("64-bit limits reach the agent exactly", () => {
  const bytes = encodeForAgent({ ...defaultSpec.process, rlimits: [{ type: "RLIMIT_CORE", soft: 0, hard: 2n ** 64n - 1n }] });
  expect(Buffer.from(bytes).toString()).toContain('"hard":18446744073709551615');
});

test("a seccomp profile is left behind, its compiled filter goes", () => {
  const spec: Spec = { ...defaultSpec, linux: { ...defaultSpec.linux, seccomp: { defaultAction: "SCMP_ACT_ALLOW" } } };
  const seccomp = { flags: 2, program: "0600000000000000" };
  expect(guestSpec(spec, { ...options, seccomp }).spec.linux?.seccomp).toEqual(seccomp);
});
