import { describe, expect, it } from "vitest";
import { type Config, loadConfig } from "../config/config.ts";
import { textReport } from "./doctor.ts";
import {
  checkAccelerator,
  checkCgroups,
  checkDevice,
  checkDisk,
  checkGuestImages,
  checkHelper,
  checkKvm,
  checkMemory,
  checkNamespaces,
  checkNode,
  checkQemu,
  checkRights,
  checkRust,
  checkSystem,
  isolationNote,
  probeHost,
} from "./doctor-checks.ts";
import type { HostView } from "./host-view.ts";

interface FakeHost extends Partial<Omit<HostView, "readText" | "open" | "isExecutable" | "firstLine">> {
  readonly files?: Readonly<Record<string, string>>;
  /** "ok" for devices that open, or the code that they fail with. */
  readonly devices?: Readonly<Record<string, string>>;
  readonly programs?: Readonly<Record<string, string>>;
}

function host({ files = {}, devices = {}, programs = {}, ...more }: FakeHost = {}): HostView {
  const refuse = (code: string): never => {
    throw Object.assign(new Error(code), { code });
  };
  return {
    architecture: "x64",
    kernelRelease: "6.1.0",
    nodeVersion: "24.21.0",
    euid: 0,
    env: {},
    totalMemoryBytes: 8 * 2 ** 30,
    readText: (path) => files[path] ?? refuse("ENOENT"),
    open: (path) => {
      const result = devices[path] ?? "ENOENT";
      if (result !== "ok") refuse(result);
    },
    isExecutable: (path) => programs[path] !== undefined,
    freeBytes: () => 2 ** 30,
    firstLine: (program) => Promise.resolve(programs[program]),
    ...more,
  };
}

async function config(files: Readonly<Record<string, string>> = {}): Promise<Config> {
  return (await loadConfig({ env: {}, files: { readText: (path) => files[path], list: () => [] } })).config;
}
const withToml = (text: string) => config({ "/etc/husk/config.toml": text });

describe("KVM and the accelerator", () => {
  const cpu = (flags: string) => ({ "/proc/cpuinfo": `flags\t\t: fpu ${flags}\n` });
  const usable = host({ files: cpu("vmx"), devices: { "/dev/kvm": "ok" } });
  const emulated = host({ files: cpu("sse"), devices: { "/dev/kvm": "ok" } });

  it("are fine where /dev/kvm opens on a processor with virtualization", async () => {
    expect(checkKvm(probeHost(usable)).status).toBe("ok");
    expect(checkAccelerator(probeHost(usable), await config())).toMatchObject({ status: "ok", found: expect.stringContaining("KVM") });
  });

  it("an open /dev/kvm proves nothing", async () => {
    expect(checkKvm(probeHost(emulated))).toMatchObject({
      status: "warn",
      found: "/dev/kvm opens, but the processor shows neither vmx nor svm",
    });
    const accelerator = checkAccelerator(probeHost(emulated), await config());
    expect(accelerator).toMatchObject({
      status: "warn",
      found: expect.stringContaining("TCG, since the processor shows neither vmx nor svm"),
    });
    expect(isolationNote([accelerator])).toContain("QEMU promises isolation between guest and host under KVM, not under TCG");
  });

  it.each([
    ["ENOENT", "svm", "there is no /dev/kvm"],
    ["EACCES", "svm", "/dev/kvm cannot be opened (EACCES)"],
    ["ENOENT", "sse", "there is no /dev/kvm, and the processor shows neither vmx nor svm"],
  ])("a /dev/kvm with %s beside the flag %s", (code, flags, found) => {
    expect(checkKvm(probeHost(host({ files: cpu(flags), devices: { "/dev/kvm": code } })))).toMatchObject({ status: "warn", found });
  });

  it("fail where the configuration demands what is not there", async () => {
    expect(checkAccelerator(probeHost(emulated), await withToml("vm.require_kvm = true"))).toMatchObject({ status: "fail" });
    expect(checkAccelerator(probeHost(host({ files: cpu("vmx") })), await withToml(`vm.accel = "kvm"`))).toMatchObject({ status: "fail" });
  });
});

describe("programs and images", () => {
  const atQemu = `vm.qemu = "${process.execPath}"`; // any program that exists: its version is the fake host's

  it("QEMU is found, and new enough", async () => {
    const found = await checkQemu(
      host({ programs: { [process.execPath]: "QEMU emulator version 7.2.22 (Debian)" } }),
      await withToml(atQemu),
    );
    expect(found).toEqual({ name: "QEMU", status: "ok", found: `${process.execPath}: QEMU emulator version 7.2.22 (Debian)` });
  });

  it("QEMU is missing, too old, or does not run", async () => {
    const missing = await checkQemu(host(), await withToml(`vm.qemu = "/no/such/qemu"`));
    expect(missing).toMatchObject({ status: "fail", mend: "apt-get install qemu-system-x86" });
    expect(missing.found).toContain("vm.qemu is /no/such/qemu, which is not an executable file");
    const old = await checkQemu(host({ programs: { [process.execPath]: "QEMU emulator version 6.2.0" } }), await withToml(atQemu));
    expect(old).toMatchObject({ status: "fail", found: `${process.execPath}: QEMU emulator version 6.2.0, older than 7.2` });
    expect(await checkQemu(host(), await withToml(atQemu))).toMatchObject({ status: "fail", found: `${process.execPath} cannot be run` });
  });

  it("the helper must have been built", () => {
    expect(checkHelper(host({ programs: { "/h": "" } }), "/h").status).toBe("ok");
    expect(checkHelper(host(), "/h")).toMatchObject({
      status: "fail",
      found: "no program at /h",
      mend: expect.stringContaining("npm run setup"),
    });
  });

  it("a guest image must have been built", async () => {
    expect(checkGuestImages(host(), await config(), "/no/such/husk")).toMatchObject({
      status: "fail",
      found: expect.stringContaining("no guest image"),
      mend: expect.stringContaining("npm run setup"),
    });
  });

  it("Rust and Node are judged by what building and running take", async () => {
    expect(await checkRust(host({ programs: { rustc: "rustc 1.95.0 (abc)" } }))).toMatchObject({ status: "ok" });
    expect(await checkRust(host({ programs: { rustc: "rustc 1.63.0" } }))).toMatchObject({
      status: "warn",
      found: "rustc 1.63.0, older than 1.85",
    });
    expect(await checkRust(host())).toMatchObject({ status: "warn", found: "no rustc", mend: expect.stringContaining("rustup") });
    expect(checkNode(host()).status).toBe("ok");
    expect(checkNode(host({ nodeVersion: "18.20.4" })).status).toBe("warn");
  });
});

describe("the host", () => {
  it("must be an x86-64", () => {
    const files = { "/etc/os-release": `NAME=x\nPRETTY_NAME="Debian GNU/Linux 12 (bookworm)"\n` };
    expect(checkSystem(host({ files }))).toMatchObject({ status: "ok", found: "Debian GNU/Linux 12 (bookworm), Linux 6.1.0, x64" });
    expect(checkSystem(host({ architecture: "arm64" })).status).toBe("fail");
  });

  it("must give us rights", () => {
    const status = (capabilities: string) => ({ "/proc/self/status": `Name:\tx\nCapEff:\t${capabilities}\n` });
    expect(checkRights(host({ files: status("000001ffffffffff") })).status).toBe("ok");
    expect(checkRights(host({ files: status("00000000a80425fb") }))).toMatchObject({ status: "fail", found: "root without CAP_SYS_ADMIN" });
    expect(checkRights(host({ euid: 1000, files: status("0") }))).toMatchObject({ found: "user 1000", mend: "run husk as root" });
  });

  it("must have namespaces", () => {
    const files = Object.fromEntries(["pid", "mnt", "net", "ipc", "uts"].map((kind) => [`/proc/sys/user/max_${kind}_namespaces`, "100\n"]));
    expect(checkNamespaces(host({ files })).status).toBe("ok");
    expect(checkNamespaces(host({ files: { ...files, "/proc/sys/user/max_net_namespaces": "0\n" } }))).toMatchObject({
      status: "fail",
      found: "none of the kind net can be made",
    });
  });

  it("may have devices", () => {
    const check = (code: string) => checkDevice(host({ devices: { "/dev/net/tun": code } }), "/dev/net/tun", "no network", "tun");
    expect(check("ok")).toMatchObject({ name: "net/tun", status: "ok" });
    expect(check("ENOENT")).toMatchObject({ status: "warn", found: "there is no /dev/net/tun: no network", mend: "modprobe tun" });
    expect(check("EPERM").found).toBe("/dev/net/tun cannot be opened (EPERM): no network");
  });

  it("may have cgroups of either version, or both", () => {
    const v2 = "30 23 0:26 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n";
    const v1 = "31 23 0:27 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n";
    const controllers = { "/sys/fs/cgroup/cgroup.controllers": "cpu memory pids\n" };
    const check = (mountinfo: string, more: object = {}) => checkCgroups(host({ files: { "/proc/self/mountinfo": mountinfo, ...more } }));
    expect(check(v2, controllers)).toMatchObject({ status: "ok", found: "version 2: cpu, memory, pids" });
    expect(check(v1)).toMatchObject({ status: "ok", found: "version 1: memory" });
    expect(check(v1 + v2)).toMatchObject({ status: "ok", found: "versions 1 and 2 side by side: memory" });
    expect(check(v2)).toMatchObject({ status: "warn", found: expect.stringContaining("without the memory controller") });
    expect(check("")).toMatchObject({ status: "warn", found: expect.stringContaining("none is mounted") });
  });

  it("should have memory and room", async () => {
    const memory = (kibibytes: number) => host({ files: { "/proc/meminfo": `MemTotal: 1 kB\nMemAvailable:   ${kibibytes} kB\n` } });
    expect(checkMemory(memory(4 * 1024 * 1024), await config()).status).toBe("ok");
    expect(checkMemory(memory(100 * 1024), await config())).toMatchObject({
      status: "warn",
      found: expect.stringContaining("100 MiB of 8192 MiB"),
    });
    expect(checkDisk(host(), "/run/husk").status).toBe("ok");
    expect(checkDisk(host({ freeBytes: () => 1024 }), "/run/husk")).toMatchObject({ status: "warn", found: "0 MiB free for /run/husk" });
  });
});

describe("the report", () => {
  it("has a line a check, how to mend it, and a verdict", () => {
    expect(
      textReport([
        { name: "a", status: "ok", found: "fine" },
        { name: "long", status: "warn", found: "odd", mend: "mend it" },
      ]),
    ).toBe("ok    a     fine\nwarn  long  odd\n            ↳ mend it\n\nhusk can run containers here.\n");
    expect(textReport([{ name: "QEMU", status: "fail", found: "none", mend: "get it" }])).toContain(
      "\nhusk cannot run containers here: QEMU.\n",
    );
  });
});
