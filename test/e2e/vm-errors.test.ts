/** A virtual machine that cannot start: the error says why, in QEMU's or the guest's own words, and nothing is left. */
import { execFileSync } from "node:child_process";
import { mkdirSync } from "node:fs";
import { join } from "node:path";
import { describe, expect } from "vitest";
import { type Host, test } from "../harness/host.ts";
import { isHusk } from "../harness/runtime.ts";
import { findPart } from "../harness/sandbox-processes.ts";
import { Terminal } from "../harness/terminal.ts";

const fixture = (name: string): string => join(import.meta.dirname, "../fixtures", name);

/** Runs with a configuration, and expects one line and the status of a failure of husk's. */
async function expectFailure(host: Host, toml: string, message: RegExp): Promise<void> {
  const { status, stdout, stderr } = await host.run(host.script("echo never"), { env: host.configuration(toml) });
  expect({ stdout, stderr }).toEqual({ stdout: "", stderr: expect.stringMatching(message) });
  expect(stderr.trimEnd().split("\n")).toHaveLength(1);
  expect(status).toBe(125);
  expect(await host.ok("list", "-q")).toBe("");
}

describe.runIf(isHusk)("QEMU", () => {
  test("is missing", ({ host }) =>
    expectFailure(
      host,
      '[vm]\nqemu = "/no/such/qemu"\n',
      /^husk: vm\.qemu is \/no\/such\/qemu, which is not an executable file \(apt-get install qemu-system-x86\)\n$/,
    ));

  test("dies at once: its message is in the error", ({ host }) =>
    expectFailure(
      host,
      `[vm]\nqemu = "${fixture("qemu-that-dies")}"\n`,
      /^husk: the VM of "c\d+" did not start: QEMU ended with status 1: qemu-system-x86_64: something is wrong with this machine\n$/,
    ));

  test("gets no memory", ({ host }) =>
    expectFailure(
      host,
      `[vm]\nqemu = "${fixture("qemu-without-memory")}"\n`,
      /^husk: the VM of "c\d+" did not start: QEMU ended with status 1: .*(Cannot allocate memory|memory).*\n$/,
    ));

  test("is not there for KVM where that is demanded", async ({ host }) => {
    const { status, stderr } = await host.run(host.script("true"), {
      env: host.configuration('[vm]\naccel = "tcg"\nrequire_kvm = true\n'),
    });
    expect({ status, stderr }).toEqual({
      status: 125,
      stderr: expect.stringMatching(/^husk: vm\.accel = "tcg" contradicts vm\.require_kvm = true: .+\n$/),
    });
  });
});

describe.runIf(isHusk)("the guest", () => {
  test("never answers: the deadline ends it", ({ host }) =>
    expectFailure(
      host,
      `[vm]\nqemu = "${fixture("qemu-that-stands-still")}"\n[deadlines]\nboot_s = 2\n`,
      /^husk: .*(did not answer|within 2 s|2000 ms).*\n$/,
    ));

  test("has too little memory for its kernel", async ({ host }) => {
    // With some sizes the kernel stops without a word, and the deadline's error has the hint; with this one it says what it lacks.
    await expectFailure(
      host,
      '[vm]\nmemory = "80MiB"\nmemory_overhead = "32MiB"\nkernel = "debian"\n[deadlines]\nboot_s = 30\n',
      /^husk: the VM of "c\d+" did not start: .*([Mm]emory|panic|initramfs).*\n$/,
    );
  });
});

test.runIf(isHusk).for(["4k", "8k", "12k", "16k"])("a full disk below the run root: %s", async (size, { host }) => {
  mkdirSync(host.root);
  execFileSync("mount", ["-t", "tmpfs", "-o", `size=${size}`, "full", host.root]);
  host.defer(() => void execFileSync("umount", [host.root]));
  const { status, stdout, stderr } = await host.run(host.script("echo ran"));
  if (status !== 0) {
    expect({ status, stdout }).toEqual({ status: 125, stdout: "" });
    expect(stderr).toMatch(/^husk: .*ENOSPC: no space left on device.*\n$/);
  } else expect({ stdout, stderr }).toEqual({ stdout: "ran\n", stderr: "" });
  expect(await host.ok("list", "-q")).toBe("");
});

test.runIf(isHusk)("Ctrl-C while the VM starts leaves nothing", async ({ host }) => {
  const terminal = Terminal.run(host, ["run", "--bundle", host.script("echo never").path, "c"]);
  await host.until(() => findPart(host, "c", "qemu") !== undefined, 30_000);
  terminal.type("\u0003");
  const { status, stdout } = await terminal.process.ended(10_000);
  expect(status).toBeGreaterThan(0);
  expect(stdout).not.toContain("never");
  expect(await host.ok("list", "-q")).toBe("");
});
