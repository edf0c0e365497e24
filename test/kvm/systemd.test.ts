/** --systemd-cgroup: systemd is the init of the emulated host, and makes, limits and removes the sandbox's cgroup, which is a scope of its own. */
import { execFileSync } from "node:child_process";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { beforeAll, expect } from "vitest";
import type { Bundle } from "../harness/bundle.ts";
import { type Host, test } from "../harness/host.ts";
import { kvm } from "../harness/kvm.ts";
import { findPart, killPart } from "../harness/sandbox-processes.ts";
import type { Json } from "../harness/spec.ts";

const MIB = 1024 ** 2;

// What systemd makes once and lets be is not to look like something left behind: generated units, the folder of transient ones, and a slice that had a scope.
beforeAll(() => {
  execFileSync("systemctl", ["daemon-reload"]);
  execFileSync("systemd-run", ["--quiet", "--scope", "--slice=machine.slice", "true"]);
});

interface Box {
  readonly id: string;
  readonly unit: string;
  readonly bundle: Bundle;
}

/** A bundle whose cgroup is a scope of its own in machine.slice. */
function box(host: Host, script: string, linux: object = {}, changes: Json = {}): Box {
  const id = `${host.name()}-${process.pid}`;
  return {
    id,
    unit: `husk-${id}.scope`,
    bundle: host.script(script, { linux: { cgroupsPath: `machine.slice:husk:${id}`, ...linux }, ...changes }),
  };
}

async function show(host: Host, unit: string, properties: readonly string[]): Promise<Record<string, string>> {
  const { stdout } = await host.start("systemctl", ["show", unit, ...properties.map((name) => `--property=${name}`)]).ended();
  return Object.fromEntries(
    stdout
      .trimEnd()
      .split("\n")
      .map((line) => line.split(/=(.*)/s) as [string, string]),
  );
}

async function isGone(host: Host, unit: string): Promise<boolean> {
  const { LoadState } = await show(host, unit, ["LoadState"]);
  return LoadState === "not-found";
}

function cgroupOf(pid: number | undefined): string {
  return readFileSync(`/proc/${pid}/cgroup`, "utf8");
}

test("a scope holds the sandbox, has its limits, and ends with it", async ({ host }) => {
  const resources = { memory: { limit: 128 * MIB }, cpu: { shares: 512, cpus: "0" } };
  const annotations = { "org.systemd.property.TimeoutStopUSec": "uint64 5000000" };
  const { id, unit, bundle } = box(host, "echo ready; read line; exit 5", { resources }, { annotations });
  const foreground = host.launch(["--systemd-cgroup", "run", "--bundle", bundle.path, id], { ...kvm(host), stdin: "pipe" });
  await foreground.stdout?.until("ready\n");
  const group = `/machine.slice/${unit}`;
  const limits = await show(host, unit, ["ControlGroup", "Slice", "Delegate", "MemoryMax", "CPUWeight", "AllowedCPUs", "ActiveState"]);
  expect(limits).toMatchObject({ ControlGroup: group, Slice: "machine.slice", Delegate: "yes", ActiveState: "active" });
  expect(limits).toMatchObject({ CPUWeight: "20", AllowedCPUs: "0" });
  expect(Number(limits["MemoryMax"])).toBeGreaterThan(128 * MIB);
  expect(readFileSync(join("/sys/fs/cgroup", group, "memory.max"), "utf8")).toBe(`${limits["MemoryMax"]}\n`);
  expect(cgroupOf(findPart(host, id, "qemu")?.pid)).toBe(`0::${group}\n`);
  expect(cgroupOf((await host.state(id)).pid)).toBe(`0::${group}\n`);
  expect(cgroupOf(findPart(host, id, "supervisor")?.pid)).not.toContain(unit);

  expect(await host.ok("logs", id)).toContain(
    'annotations[\\"org.systemd.property.TimeoutStopUSec\\"]: the scope has husk\'s own properties',
  );

  await host.ok("--systemd-cgroup", "update", "--cpu-share", "1024", "--cpuset-cpus", "0-1", id);
  expect(await show(host, unit, ["CPUWeight", "AllowedCPUs"])).toEqual({ CPUWeight: "39", AllowedCPUs: "0-1" });
  // What systemd knows, it keeps: limits written behind its back would be gone after this.
  await host.start("systemctl", ["daemon-reload"]).ended();
  expect(readFileSync(join("/sys/fs/cgroup", group, "cpu.weight"), "utf8")).toBe("39\n");

  foreground.stdin.end("\n");
  expect(await foreground.ended()).toEqual({ status: 5, stdout: "ready\n", stderr: "" });
  expect(await isGone(host, unit)).toBe(true);
});

test("a sandbox of the pool is put into the scope of the container that takes it", async ({ host }) => {
  const options = { env: { ...kvm(host).env, HUSK_POOL: host.path("pools") } };
  const pool = host.launch(["pool", "--size", "1"], options);
  host.defer(() => pool.signal("SIGKILL"));
  await pool.stdout?.until("ready\n", 300_000);
  const { id, unit, bundle } = box(host, "echo ready; read line; exit 5");
  const words = ["--systemd-cgroup", "run", "--trace", "--bundle", bundle.path, id];
  const foreground = host.launch(words, { ...options, stdin: "pipe" });
  await foreground.stdout?.until("ready\n");
  expect(cgroupOf(findPart(host, id, "qemu")?.pid)).toBe(`0::/machine.slice/${unit}\n`);
  expect(cgroupOf((await host.state(id)).pid)).toBe(`0::/machine.slice/${unit}\n`);
  expect(await show(host, unit, ["ActiveState"])).toEqual({ ActiveState: "active" });
  foreground.stdin.end("\n");
  expect(await foreground.ended()).toMatchObject({ status: 5, stderr: expect.stringContaining("taken from the pool") });
  expect(await isGone(host, unit)).toBe(true);
  expect((await host.launch(["pool", "stop"], options).ended()).status).toBe(0);
  expect((await pool.ended()).status).toBe(0);
});

test("delete --force stops the scope without a supervisor", async ({ host }) => {
  const { id, unit, bundle } = box(host, "exec sleep 1000");
  const options = kvm(host);
  expect(await host.launch(["--systemd-cgroup", "create", "--bundle", bundle.path, id], options).exited()).toBe(0);
  // A process that is not of the sandbox: the scope outlives the sandbox's.
  const stray = host.start("sh", ["-c", `echo $$ > /sys/fs/cgroup/machine.slice/${unit}/cgroup.procs; echo in; exec sleep 1000`]);
  await stray.stdout?.until("in\n");
  await killPart(host, id, "supervisor");
  await host.until(async () => (await host.state(id)).status === "stopped", 60_000);
  expect(await isGone(host, unit)).toBe(false);
  await host.ok("--systemd-cgroup", "delete", "--force", id);
  expect(await stray.exited()).toBe(137);
  expect(await isGone(host, unit)).toBe(true);
});

test("a unit that is there is not taken, and what cannot be one is refused", async ({ host }) => {
  const { id, unit, bundle } = box(host, "true");
  const other = host.start("systemd-run", ["--scope", "--slice=machine.slice", `--unit=${unit}`, "sleep", "1000"]);
  await host.until(async () => !(await isGone(host, unit)), 60_000);
  const taken = await host.launch(["--systemd-cgroup", "run", "--bundle", bundle.path, id], kvm(host)).ended();
  expect(taken.status).not.toBe(0);
  expect(taken.stderr).toMatch(/^husk: cannot make the scope husk-.+\.scope: .*already.*\n$/);
  expect(other.running).toBe(true);
  other.signal("SIGTERM");
  await other.exited();

  const path = await host.launch(["--systemd-cgroup", "run", "--bundle", host.bundle({ linux: { cgroupsPath: "/a/b" } }).path, id]).ended();
  expect(path.stderr).toBe('husk: config.json: linux.cgroupsPath: "/a/b": with --systemd-cgroup, expected slice:prefix:name\n');
});
