/** What config.json asks of a container, seen from inside it. */
import { mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { expect } from "vitest";
import { test } from "../harness/host.ts";
import { makeNetwork, namespacePath } from "../harness/network.ts";
import { either, isHusk } from "../harness/runtime.ts";
import { defaultMounts } from "../harness/spec.ts";

/** Lines "name=value" as an object. */
function facts(text: string): Record<string, string> {
  return Object.fromEntries(
    text
      .trimEnd()
      .split("\n")
      .map((line) => [line.slice(0, line.indexOf("=")), line.slice(line.indexOf("=") + 1)]),
  );
}

test("process: user, groups, umask, directory, environment, capabilities, limits, no new privileges", async ({ host }) => {
  const script = `
    echo uid=$(id -u); echo gid=$(id -g); echo groups=$(id -G); echo umask=$(umask); echo cwd=$PWD; echo env=$KEY; echo host=$(hostname)
    for field in CapInh CapPrm CapEff CapBnd CapAmb NoNewPrivs; do echo $field=$(sed -n "s/^$field:[[:space:]]*//p" /proc/self/status); done
    echo files=$(ulimit -n); echo size=$(ulimit -Sf)/$(ulimit -Hf); echo core=$(ulimit -Sc); echo oom=$(cat /proc/self/oom_score_adj); echo args=$0,$1`;
  const bundle = host.bundle({
    process: {
      args: ["sh", "-c", script, "zero", "one two"],
      user: { uid: 1000, gid: 1000, additionalGids: [5, 4000], umask: 0o027 },
      cwd: "/tmp",
      env: ["PATH=/bin", "KEY=a value=with=signs"],
      capabilities: {
        bounding: ["CAP_CHOWN", "CAP_NET_RAW", "CAP_KILL"],
        permitted: ["CAP_NET_RAW", "CAP_KILL"],
        inheritable: ["CAP_KILL"],
        effective: ["CAP_KILL"],
        ambient: ["CAP_KILL"],
      },
      rlimits: [
        { type: "RLIMIT_NOFILE", soft: 512, hard: 512 },
        { type: "RLIMIT_FSIZE", soft: 1_048_576, hard: 2_097_152 },
        { type: "RLIMIT_CORE", soft: 0, hard: 0 },
      ],
      noNewPrivileges: true,
      oomScoreAdj: 500,
    },
    hostname: "inside",
  });
  const result = await host.run(bundle);
  expect(result.stderr).toBe("");
  expect(facts(result.stdout)).toEqual({
    uid: "1000",
    gid: "1000",
    groups: "1000 5 4000",
    umask: "0027",
    cwd: "/tmp",
    env: "a value=with=signs",
    host: "inside",
    // A program started as another user than root keeps what is ambient.
    CapInh: "0000000000000020",
    CapPrm: "0000000000000020",
    CapEff: "0000000000000020",
    CapBnd: "0000000000002021",
    CapAmb: "0000000000000020",
    NoNewPrivs: "1",
    files: "512",
    size: "2048/4096",
    core: "0",
    oom: "500",
    args: "zero,one two",
  });
});

test("a user that no file names, and a root without capabilities or limits", async ({ host }) => {
  const user = { uid: 4242, gid: 4343 };
  expect((await host.run(host.script("id -u; id -g", { process: { user } }))).stdout).toBe("4242\n4343\n");
  const bare = host.script("grep -E 'Cap(Eff|Bnd)|NoNewPrivs' /proc/self/status; touch /tmp/x; chown 1:1 /tmp/x 2>&1", {
    process: { capabilities: undefined, rlimits: undefined, noNewPrivileges: false },
  });
  const { stdout } = await host.run(bare);
  expect(stdout).toMatch(/^CapEff:\t0+\nCapBnd:\t0+\nNoNewPrivs:\t0\n/);
  expect(stdout).toContain("Operation not permitted");
});

test("namespaces of its own: processes, network, messages", async ({ host }) => {
  const script =
    "echo init=$(cat /proc/1/comm); echo links=$(ls /sys/class/net); echo lo=$(ip -o link show lo | grep -c UP); echo queues=$(ls /dev/mqueue | wc -l)";
  expect(facts((await host.run(host.script(script))).stdout)).toEqual({ init: "sh", links: "lo", lo: "1", queues: "0" });
});

test("paths: a read-only root, masked and read-only paths, sysctl, devices", async ({ host }) => {
  const script = `
    touch /new 2>/dev/null; echo root=$?; touch /tmp/new; echo tmp=$?
    echo masked=$(cat /secret | wc -c); echo folder=$(ls /vault | wc -l); touch /vault/x 2>/dev/null; echo vault=$?
    touch /frozen/x 2>/dev/null; echo frozen=$?; cat /frozen/file; echo 0 >/proc/sys/kernel/msgmax 2>/dev/null; echo sys=$?
    echo msgmax=$(cat /proc/sys/kernel/msgmax); echo forward=$(cat /proc/sys/net/ipv4/ip_forward)
    for node in null zero full random urandom tty; do [ -c /dev/$node ] || echo missing=$node; done
    echo null=$(echo x >/dev/null; echo $?); echo zero=$(head -c 3 /dev/zero | wc -c); echo random=$(head -c 3 /dev/urandom | wc -c)
    echo ptmx=$(readlink /dev/ptmx); echo fd=$(readlink /dev/fd); echo stdin=$(readlink /dev/stdin); echo shm=$(df -k /dev/shm | tail -1 | tr -s ' ' | cut -d' ' -f2)
    echo node=$(stat -c '%t:%T %a %u:%g' /dev/extra); mknod /tmp/disk b 8 0 && head -c 1 /tmp/disk 2>/dev/null; echo denied=$?`;
  const bundle = host.script(script, {
    root: { readonly: true },
    mounts: [...defaultMounts, { destination: "/tmp", type: "tmpfs", source: "tmpfs", options: ["nosuid", "size=1m", "mode=1777"] }],
    linux: {
      maskedPaths: ["/secret", "/vault", "/not/there"],
      readonlyPaths: ["/frozen", "/proc/sys", "/not/there"],
      sysctl: { "net.ipv4.ip_forward": "1", "kernel.msgmax": "4096" },
      devices: [{ path: "/dev/extra", type: "c", major: 1, minor: 7, fileMode: 0o640, uid: 1, gid: 2 }],
      resources: {
        devices: [
          { allow: false, access: "rwm" },
          { allow: true, type: "c", major: 1, minor: 7, access: "rwm" },
        ],
      },
    },
  });
  for (const folder of ["vault", "frozen"]) mkdirSync(`${bundle.rootfs}/${folder}`);
  writeFileSync(`${bundle.rootfs}/secret`, "secret\n");
  writeFileSync(`${bundle.rootfs}/vault/secret`, "secret\n");
  writeFileSync(`${bundle.rootfs}/frozen/file`, "readable=yes\n");
  const result = await host.run(bundle);
  expect(facts(result.stdout)).toEqual({
    root: "1",
    tmp: "0",
    masked: "0",
    folder: "0",
    vault: "1",
    frozen: "1",
    readable: "yes",
    sys: "1",
    msgmax: "4096",
    forward: "1",
    null: "0",
    zero: "3",
    random: "3",
    ptmx: "pts/ptmx",
    fd: "/proc/self/fd",
    stdin: "/proc/self/fd/0",
    shm: "65536",
    node: "1:7 640 1:2",
    denied: "1",
  });
});

test("mounts: tmpfs of a size, folders and files of the host, read-only and not", async ({ host }) => {
  const shared = host.path("shared");
  mkdirSync(shared);
  writeFileSync(`${shared}/file`, "from the host\n");
  writeFileSync(host.path("single"), "single\n");
  const script = `
    dd if=/dev/zero of=/small/x bs=64k count=32 2>/dev/null; echo full=$?; echo size=$(stat -c %s /small/x)
    echo dir=$(cat /dir/file); echo made >/dir/new; echo write=$?; echo ro=$(cat /ro/file); echo x >/ro/new 2>/dev/null; echo rowrite=$?
    echo file=$(cat /etc/single); echo changed >/etc/single; echo x >/etc/frozen 2>/dev/null; echo rofile=$?
    echo noexec=$(cp /bin/busybox /small/b 2>/dev/null; mount | grep -c 'on /small .*noexec'); echo deep=$(cat /made/on/the/way/file)`;
  const bundle = host.script(script, {
    mounts: [
      ...defaultMounts,
      { destination: "/small", type: "tmpfs", source: "tmpfs", options: ["size=1m", "noexec"] },
      { destination: "/dir", type: "bind", source: shared, options: ["bind", "rw"] },
      { destination: "/ro", type: "none", source: shared, options: ["rbind", "ro"] },
      { destination: "/etc/single", type: "bind", source: host.path("single"), options: ["bind"] },
      { destination: "/etc/frozen", type: "bind", source: host.path("single"), options: ["bind", "ro"] },
      { destination: "/made/on/the/way", source: "../shared", options: ["bind"], type: "bind" },
    ],
  });
  const result = await host.run(bundle);
  expect(facts(result.stdout)).toEqual({
    full: "1",
    size: "1048576",
    dir: "from the host",
    write: "0",
    ro: "from the host",
    rowrite: "1",
    file: "single",
    rofile: "1",
    noexec: "1",
    deep: "from the host",
  });
  expect(readFileSync(`${shared}/new`, "utf8")).toBe("made\n");
  expect(readFileSync(host.path("single"), "utf8")).toBe("changed\n");
});

test("a bind mount shows what the host writes meanwhile, and the other way round", async ({ host }) => {
  const shared = host.path("shared");
  mkdirSync(shared);
  // What husk's guest knows of a file it may believe for a second, before it asks the host again.
  const script =
    "echo ready; read line; cat /dir/late; echo back >/dir/back; echo ready; until grep -q longer /dir/late; do :; done; cat /dir/late";
  const bundle = host.script(script, {
    mounts: [...defaultMounts, { destination: "/dir", type: "bind", source: shared, options: ["bind"] }],
  });
  const { foreground } = await host.running(bundle, { stdin: "pipe" });
  writeFileSync(`${shared}/late`, "first\n");
  foreground.stdin.end("\n");
  await foreground.stdout?.until("first\nready\n");
  expect(readFileSync(`${shared}/back`, "utf8")).toBe("back\n");
  writeFileSync(`${shared}/late`, "second, and longer\n");
  expect((await foreground.ended()).stdout).toBe("ready\nfirst\nready\nsecond, and longer\n");
});

test("seccomp: a call that is denied has its errno, the others work", async ({ host }) => {
  const seccomp = {
    defaultAction: "SCMP_ACT_ALLOW",
    architectures: ["SCMP_ARCH_X86_64"],
    syscalls: [{ names: ["mkdir", "mkdirat"], action: "SCMP_ACT_ERRNO", errnoRet: 95 }],
  };
  const result = await host.run(host.script("mkdir /new; rmdir /tmp && echo rmdir works", { linux: { seccomp } }));
  expect(result).toEqual({ status: 0, stdout: "rmdir works\n", stderr: "mkdir: can't create directory '/new': Operation not supported\n" });
});

test("limits: processes", async ({ host }) => {
  const script = "i=0; while [ $i -lt 20 ]; do sleep 1000 & i=$((i+1)); done";
  const { status, stderr } = await host.run(host.script(script, { linux: { resources: { pids: { limit: 8 } } } }));
  expect(stderr).toMatch(/can't fork: Resource temporarily unavailable/);
  expect(status).toBe(2);
});

test("limits: memory, whose excess is death by SIGKILL", async ({ host }) => {
  const bundle = host.bundle({ process: { args: ["tail", "/dev/zero"] }, linux: { resources: { memory: { limit: 64 * 1024 * 1024 } } } });
  const { status, stdout } = await host.run(bundle);
  expect({ status, stdout }).toEqual({ status: 137, stdout: "" });
});

test("a network namespace by path: its links, addresses and routes, and neighbours that answer", async ({ host }) => {
  const network = await makeNetwork(host);
  const server = host.start("nsenter", [
    `--net=${namespacePath(network.neighbour)}`,
    "sh",
    "-c",
    "echo hello over there | busybox nc -l -p 7000",
  ]);
  const script = `
    ip -4 -o address show eth0 | tr -s ' ' | cut -d' ' -f4; ip route | grep default | cut -d' ' -f1-5
    ping -c 2 -q 10.93.7.1 | grep packets; nc 10.93.7.1 7000`;
  const namespaces = ["pid", "ipc", "uts", "mount"].map((type) => ({ type }));
  const bundle = host.script(script, { linux: { namespaces: [...namespaces, { type: "network", path: network.path }] } });
  const { stdout } = await host.run(bundle);
  expect(stdout.split("\n")).toEqual([
    "10.93.7.2/24",
    "default via 10.93.7.1 dev eth0",
    "2 packets transmitted, 2 packets received, 0% packet loss",
    "hello over there",
    "",
  ]);
  await server.ended();
  expect(network.ip("-o link").match(/^\d+: [^:@]+/gm)).toEqual([expect.stringMatching(/lo$/), expect.stringMatching(/eth0$/)]);
  await network.close();
});

test.runIf(isHusk)("processors and memory follow the bundle's resources", async ({ host }) => {
  const resources = { cpu: { quota: 200_000, period: 100_000 }, memory: { limit: 256 * 1024 * 1024 } };
  const { stdout } = await host.run(
    host.script("grep -c ^processor /proc/cpuinfo; sed -n 's/^MemTotal: *\\([0-9]*\\) kB/\\1/p' /proc/meminfo", { linux: { resources } }),
  );
  const [processors, kilobytes] = stdout.split("\n").map(Number);
  expect(processors).toBe(2);
  expect(kilobytes).toBeGreaterThan(256 * 1024);
  expect(kilobytes).toBeLessThan(512 * 1024);
});

test("annotations are passed on, and an unknown property is no reason to fail", async ({ host }) => {
  const bundle = host.script("echo fine", { annotations: { "org.example": "x" }, linux: { somethingNew: true } });
  expect((await host.run(bundle)).stdout).toBe(either({ husk: "fine\n", runc: "fine\n" }));
});
