/** config.json's linux section: cgroups and their limits, devices, seccomp, system controls, and the host's part of it. */
import { readFileSync } from "node:fs";
import { expect } from "vitest";
import { test } from "../harness/host.ts";
import { isHusk } from "../harness/runtime.ts";
import { defaultMounts } from "../harness/spec.ts";

const MIB = 1024 ** 2;

test.runIf(isHusk)("resources: a file of cgroup v2 that the guest does not have is refused by name", async ({ host }) => {
  const { status, stdout, stderr } = await host.run(
    host.script("echo never", { linux: { resources: { unified: { "nosuch.max": "1" } } } }),
  );
  expect({ status, stdout }).toEqual({ status: 125, stdout: "" });
  expect(stderr).toMatch(/^husk: .*cgroup nosuch\.max: the guest's kernel does not have it\n$/);
});

test.runIf(isHusk)("resources: every limit that acts in the guest, and those that act on the host", async ({ host }) => {
  const resources = {
    memory: { limit: 128 * MIB, reservation: 32 * MIB, swap: 256 * MIB, swappiness: 10, kernel: MIB, kernelTCP: MIB, useHierarchy: true },
    cpu: { shares: 512, quota: 50_000, period: 100_000, burst: 10_000, cpus: "0", mems: "0" },
    pids: { limit: 50 },
    hugepageLimits: [{ pageSize: "2MB", limit: 4 * MIB }],
    blockIO: { weight: 0, throttleReadBpsDevice: [{ major: 254, minor: 0, rate: 1_000_000 }], throttleWriteIOPSDevice: [] },
    unified: { "memory.high": String(100 * MIB), "memory.oom.group": "1", "memory.swap.max": "0" },
    network: { classID: 0, priorities: [] },
    rdma: {},
  };
  const files = [
    "memory.max",
    "memory.low",
    "memory.high",
    "memory.oom.group",
    "cpu.max",
    "cpu.max.burst",
    "cpu.weight",
    "pids.max",
  ].concat("hugetlb.2MB.max");
  const script = `cat /proc/self/cgroup; cd /sys/fs/cgroup; for file in ${files.join(" ")}; do echo $file=$(cat $file); done; echo ready; read line`;
  const { foreground } = await host.running(host.script(script, { linux: { cgroupsPath: "/husk-test/limits", resources } }), {
    stdin: "pipe",
  });
  expect(foreground.stdout?.text().split("\n")).toEqual([
    "0::/",
    `memory.max=${128 * MIB}`,
    `memory.low=${32 * MIB}`,
    `memory.high=${100 * MIB}`,
    "memory.oom.group=1",
    "cpu.max=50000 100000",
    "cpu.max.burst=10000",
    "cpu.weight=20",
    "pids.max=50",
    `hugetlb.2MB.max=${4 * MIB}`,
    "ready",
    "",
  ]);
  const onHost = (file: string) => readFileSync(`/sys/fs/cgroup/${file.split(".")[0]}/husk-test/limits/${file}`, "utf8").trim();
  // 128 MiB for the container, 128 for the guest's own, 384 for QEMU: the defaults of the configuration.
  expect(onHost("memory.limit_in_bytes")).toBe(String((128 + 128 + 384) * MIB));
  expect(onHost("cpu.shares")).toBe("512");
  expect([onHost("cpuset.cpus"), onHost("cpuset.mems")]).toEqual(["0", "0"]);
  expect(onHost("blkio.throttle.read_bps_device")).toBe("254:0 1000000");
  foreground.stdin.end("\n");
  await foreground.ended();
});

test.runIf(isHusk)("resources: an idle group, and all of the guest's memory for one without a limit", async ({ host }) => {
  const resources = { cpu: { idle: 1 }, memory: { limit: -1, checkBeforeUpdate: true }, pids: { limit: -1 } };
  const { stdout } = await host.run(host.script("cd /sys/fs/cgroup; cat cpu.idle memory.max pids.max", { linux: { resources } }));
  expect(stdout).toBe("1\nmax\nmax\n");
});

test("devices: each kind that a guest has, and rules for what is not listed", async ({ host }) => {
  const script = `stat -c "%n %F %a %u:%g" /dev/full2 /dev/pipe; (echo through >/dev/pipe &); cat /dev/pipe; head -c 1 /dev/full2 | wc -c
    mknod /tmp/tty c 4 0 2>/dev/null; (: </tmp/tty) 2>/dev/null; echo tty=$?; mknod /tmp/zero c 1 5; head -c 2 /tmp/zero | wc -c`;
  const bundle = host.script(script, {
    mounts: [...defaultMounts, { destination: "/tmp", type: "tmpfs", source: "x", options: ["dev"] }],
    linux: {
      devices: [
        { path: "/dev/full2", type: "c", major: 1, minor: 7, fileMode: 0o604, uid: 3, gid: 4 },
        { path: "/dev/pipe", type: "p", fileMode: 0o600 },
      ],
      resources: {
        devices: [
          { allow: false, access: "rwm" },
          { allow: true, type: "c", major: -1, minor: -1, access: "m" },
          { allow: true, type: "c", major: 1, minor: 7, access: "r" },
        ],
      },
    },
  });
  const { stdout } = await host.run(bundle);
  expect(stdout).toBe("/dev/full2 character special file 604 3:4\n/dev/pipe fifo 600 0:0\nthrough\n1\ntty=1\n2\n");
});

function allowAllBut(syscall: object): object {
  return {
    defaultAction: "SCMP_ACT_ALLOW",
    defaultErrnoRet: 1,
    architectures: ["SCMP_ARCH_X86_64", "SCMP_ARCH_X86", "SCMP_ARCH_X32"],
    syscalls: [syscall],
  };
}

test("seccomp: arguments, an errno of one's own, and death", async ({ host }) => {
  const rule = { names: ["setpriority"], action: "SCMP_ACT_ERRNO", errnoRet: 33, args: [{ index: 2, value: 5, op: "SCMP_CMP_EQ" }] };
  const partly = await host.run(
    host.script("renice -n 5 $$ 2>&1; renice -n 6 $$ && echo other", { linux: { seccomp: allowAllBut(rule) } }),
  );
  expect(partly.stdout).toEqual(expect.stringMatching(/^renice: .*Numerical argument out of domain\nother\n$/));
  const killed = allowAllBut({ names: ["mkdir", "mkdirat"], action: "SCMP_ACT_KILL_PROCESS" });
  expect((await host.run(host.script("exec mkdir /x", { linux: { seccomp: killed } }))).status).toBe(128 + 31);
});

test("seccomp: a profile that is older than the calls of the set-up does not stop it", async ({ host }) => {
  const seccomp = allowAllBut({ names: ["close_range", "faccessat2", "openat2", "statx", "clone3"], action: "SCMP_ACT_ERRNO" });
  for (const noNewPrivileges of [false, true]) {
    const bundle = host.script("echo runs", { process: { noNewPrivileges }, linux: { seccomp } });
    expect(await host.run(bundle)).toEqual({ status: 0, stdout: "runs\n", stderr: "" });
  }
});

test("what the virtual machine's boundary subsumes is accepted, and said in the log", async ({ host }) => {
  const log = host.path("log");
  const bundle = host.bundle({
    process: { apparmorProfile: isHusk ? "docker-default" : "", selinuxLabel: isHusk ? "system_u:system_r:container_t:s0" : "" },
    linux: isHusk ? { mountLabel: "system_u:object_r:container_file_t:s0" } : {},
  });
  const { status } = await host.launch(["--debug", "--log", log, "run", "--bundle", bundle.path, "box"]).ended();
  expect(status).toBe(0);
  if (isHusk) {
    const text = readFileSync(log, "utf8");
    for (const field of ["process.apparmorProfile", "process.selinuxLabel", "linux.mountLabel"]) expect(text).toContain(`${field}: the `);
  }
});

test.runIf(isHusk)("what has no meaning in a virtual machine is refused by name, before anything starts", async ({ host }) => {
  const refused: [object, string][] = [
    [{ linux: { intelRdt: { closID: "x" } } }, "linux.intelRdt: the host's resctrl groups cannot hold processes of a guest"],
    [{ linux: { netDevices: { eth0: {} } } }, "linux.netDevices: a network device of the host cannot be moved into a virtual machine"],
    [{ linux: { memoryPolicy: { mode: "MPOL_BIND", nodes: "0" } } }, "linux.memoryPolicy: it names the host's memory nodes"],
    [{ linux: { seccomp: { defaultAction: "SCMP_ACT_NOTIFY" } } }, "linux.seccomp.defaultAction: SCMP_ACT_NOTIFY"],
    [{ linux: { resources: { rdma: { mlx: { hcaHandles: 1 } } } } }, "linux.resources.rdma: the guest has no RDMA devices"],
    [{ linux: { resources: { network: { classID: 5 } } } }, "linux.resources.network.classID: cgroup v2"],
    [{ linux: { resources: { cpu: { realtimeRuntime: 5 } } } }, "linux.resources.cpu.realtimeRuntime: cgroup v2"],
    [{ linux: { resources: { memory: { disableOOMKiller: true } } } }, "linux.resources.memory.disableOOMKiller: cgroup v2"],
    [{ linux: { personality: { domain: "LINUX", flags: ["X"] } } }, "linux.personality.flags: no flags are supported"],
    [{ process: { commandLine: "cmd" } }, "process.commandLine: it is Windows' own"],
    [{ vm: { kernel: { path: "/k" } } }, "vm: the bundle may not choose the virtual machine"],
    [{ windows: { layerFolders: ["x"] } }, "windows: the guest is Linux"],
    [{ solaris: { milestone: "x" }, zos: { x: 1 }, freebsd: { x: 1 } }, "freebsd: the guest is Linux"],
    [{ annotations: { "io.husk.memory": "1GiB" } }, 'annotations["io.husk.memory"]: the administrator does not allow it'],
  ];
  for (const [changes, words] of refused) {
    const { status, stderr } = await host.run(host.bundle(changes as never));
    expect({ status, stderr }).toEqual({ status: 125, stderr: expect.stringContaining(`config.json: `) });
    expect(stderr).toContain(words);
  }
});

test.runIf(isHusk)("the vm section, where the administrator allows it", async ({ host }) => {
  const env = host.configuration("[allow]\nvm_section = true\n");
  const bundle = host.script("cat /proc/cmdline", {
    vm: { hypervisor: { path: "/usr/bin/qemu-system-x86_64" }, kernel: { path: kernelPath(), parameters: ["husk.test=yes"] } },
  });
  const { stdout, stderr } = await host.run(bundle, { env });
  expect(stderr).toBe("");
  expect(stdout).toContain("husk.test=yes");
  const wrong = await host.run(host.bundle({ vm: { image: { path: "/i", format: "raw" } } }), { env });
  expect(wrong.stderr).toContain("vm.image: husk boots images of its own");
});

/** The kernel that is used anyway, by its path. */
function kernelPath(): string {
  const folders = [
    `${import.meta.dirname}/../../guest`,
    `${process.env["XDG_CACHE_HOME"] ?? `${process.env["HOME"] ?? "/root"}/.cache`}/husk/guest`,
  ];
  for (const folder of folders) {
    for (const flavour of ["own", "debian"]) {
      try {
        readFileSync(`${folder}/${flavour}/about.json`);
        return `${folder}/${flavour}/kernel`;
      } catch {} // not that one
    }
  }
  throw new Error("no guest image");
}
