/** A virtual machine that grows and shrinks with its container's limits, while it runs. */
import { execFileSync } from "node:child_process";
import { randomBytes } from "node:crypto";
import { closeSync, openSync, readFileSync, writeFileSync } from "node:fs";
import { availableParallelism } from "node:os";
import { join } from "node:path";
import { describe, expect } from "vitest";
import { makeRootfs } from "../harness/bundle.ts";
import { type Host, test } from "../harness/host.ts";
import { descendants } from "../harness/processes.ts";
import { isHusk } from "../harness/runtime.ts";

const MIB = 1024 ** 2;
const cgroupsPath = "/husk-test/resize";
/** What QEMU and virtiofsd may have beyond the guest's memory. */
const hostMib = 384;
/** More than one, where the host has more. */
const most = Math.min(2, availableParallelism());

/** A container whose machine has one processor and 192 MiB. */
const small = {
  cgroupsPath,
  namespaces: ["pid", "network", "ipc", "uts", "mount", "cgroup"].map((type) => ({ type })),
  resources: { memory: { limit: 64 * MIB }, cpu: { quota: 100_000, period: 100_000 } },
};
const baseMib = 192;
const waits = "echo ready; read line";

interface Size {
  readonly mebibytes: number;
  readonly processors: number;
}

/** What the guest has. */
async function guest(host: Host, id: string): Promise<Size> {
  const text = await host.ok("exec", id, "sh", "-c", "sed -n 's/^MemTotal: *//p' /proc/meminfo; nproc");
  const [memory = "", processors] = text.split("\n");
  return { mebibytes: Number.parseInt(memory, 10) / 1024, processors: Number(processors) };
}

/** How much memory the host lets the sandbox have for its guest, in MiB. */
function allowed(): number {
  return Number(readFileSync(`/sys/fs/cgroup/memory${cgroupsPath}/memory.limit_in_bytes`, "utf8")) / MIB - hostMib;
}

/** Waits until the guest has given back what it was asked for. */
async function shrunk(host: Host, id: string, before: Size): Promise<void> {
  await host.until(async () => allowed() === baseMib, 60_000);
  expect(await guest(host, id)).toEqual({ mebibytes: expect.closeTo(before.mebibytes, -1), processors: before.processors });
}

describe.runIf(isHusk)("the machine", () => {
  test("grows with the limits, is served files into what it got, gives it back, and grows again", async ({ host }) => {
    const bundle = host.script(waits, { linux: small });
    // More than the machine was made with: some of it has to be read into what was plugged in.
    const content = randomBytes(baseMib * MIB);
    writeFileSync(join(bundle.rootfs, "file"), content);
    const { id, foreground } = await host.running(bundle, { stdin: "pipe" });
    const before = await guest(host, id);
    expect(before.processors).toBe(1);
    expect(before.mebibytes).toBeLessThan(baseMib);

    await host.ok("update", "--memory", "384m", id);
    expect(allowed()).toBe(baseMib + 384); // whole blocks of 128 MiB
    expect(await guest(host, id)).toEqual({ mebibytes: expect.closeTo(before.mebibytes + 384, -1), processors: 1 });
    const copy = host.path("copy");
    const stdout = openSync(copy, "w");
    expect(await host.launch(["exec", id, "cat", "/file"], { stdout }).ended()).toMatchObject({ status: 0 });
    closeSync(stdout);
    expect(readFileSync(copy).equals(content)).toBe(true);
    // Once more, since pages that leave as bulk output are no longer the file's in the guest.
    await host.ok("exec", id, "dd", "if=/file", "of=/dev/null", "bs=1M");
    expect(Number(await host.ok("exec", id, "sed", "-n", "s/^file //p", "/sys/fs/cgroup/memory.stat"))).toBeGreaterThan(
      0.9 * content.length,
    );

    await host.ok("update", "--cpu-quota", String(most * 100_000), id);
    expect((await guest(host, id)).processors).toBe(most);
    await host.ok("update", "--memory", "64m", "--cpu-quota", "100000", id);
    await shrunk(host, id, before);
    await host.ok("update", "--memory", "128m", "--cpu-quota", String(most * 100_000), id);
    expect(await guest(host, id)).toEqual({ mebibytes: expect.closeTo(before.mebibytes + 128, -1), processors: most });
    foreground.stdin.end("\n");
    expect((await foreground.ended()).status).toBe(0);
  });

  test("grows where it was booted, and where its root is a disk", async ({ host }) => {
    const image = host.path("image");
    makeRootfs(`${image}-folder`);
    execFileSync("mkfs.erofs", ["--quiet", image, `${image}-folder`], { stdio: "pipe" });
    const env = host.configuration("[template]\nenabled = false\n");
    for (const [bundle, options] of [
      [host.script(waits, { linux: small }), { env }],
      [host.script(waits, { linux: { ...small, cgroupsPath: `${cgroupsPath}-disk` }, root: { path: image } }), {}],
    ] as const) {
      const { id, foreground } = await host.running(bundle, { stdin: "pipe", ...options });
      const before = await guest(host, id);
      await host.ok("update", "--memory", "320m", "--cpu-quota", String(most * 100_000), id);
      expect(await guest(host, id)).toEqual({ mebibytes: expect.closeTo(before.mebibytes + 256, -1), processors: most });
      await host.ok("exec", id, "dd", "if=/dev/zero", "of=/dev/null", "bs=256M", "count=1"); // whose buffer is more than the machine was made with
      foreground.stdin.end("\n");
      expect((await foreground.ended()).status).toBe(0);
    }
  });

  test("grows no further than the configuration says, and nothing changes where it cannot", async ({ host }) => {
    const env = host.configuration('[vm]\nmax_vcpus = 1\nmax_memory = "512MiB"\n');
    const { id, foreground } = await host.running(host.script(waits, { linux: small }), { stdin: "pipe", env });
    const before = await guest(host, id);
    for (const [flags, message] of [
      [
        ["--memory", "512m", "--pids-limit", "7"],
        "linux.resources.memory.limit: it needs a virtual machine with 640 MiB of memory, and this one can have 576 MiB at most",
      ],
      [
        ["--cpu-quota", "200000", "--cpu-share", "2"],
        `linux.resources.cpu.quota: it needs a virtual machine with 2 processors, and this one can have 1 at most`,
      ],
    ] as const) {
      const { status, stderr } = await host.runtime("update", ...flags, id);
      expect({ failed: status !== 0, stderr }).toEqual({ failed: true, stderr: expect.stringContaining(message) });
    }
    expect(await guest(host, id)).toEqual(before);
    expect(await host.ok("exec", id, "cat", "/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/pids.max")).toBe(`${64 * MIB}\nmax\n`);
    await host.ok("update", "--memory", "384m", id);
    expect((await guest(host, id)).mebibytes).toBeCloseTo(before.mebibytes + 384, -1);
    foreground.stdin.end("\n");
    await foreground.ended();
  });

  test("is not what pays for a container that takes more than its limit", async ({ host }) => {
    const hog = "tail /dev/zero; echo $?; read line";
    const { id, foreground } = await host.running(host.script(`echo ready; ${hog}`, { linux: small }), { stdin: "pipe" });
    await foreground.stdout?.until("137\n");
    await host.ok("update", "--memory", "192m", id);
    expect(await host.ok("exec", id, "sh", "-c", "tail /dev/zero; echo $?")).toBe("137\n");
    expect(await host.ok("exec", id, "cat", "/sys/fs/cgroup/memory.events")).toMatch(/^oom_kill 2$/m);
    const usage = Number(readFileSync(`/sys/fs/cgroup/memory${cgroupsPath}/memory.failcnt`, "utf8"));
    expect(usage).toBe(0); // the host's limit was never met
    expect(descendants(foreground.child.pid ?? 0).filter(({ name }) => name.startsWith("qemu-system"))).toHaveLength(1);
    foreground.stdin.end("\n");
    expect((await foreground.ended()).status).toBe(0);
  });
});
