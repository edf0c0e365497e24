/** update and events: limits of a container that lives, and what it uses. */
import { readFileSync, writeFileSync } from "node:fs";
import { expect } from "vitest";
import { type Host, test } from "../harness/host.ts";
import { either, isHusk } from "../harness/runtime.ts";

const MIB = 1024 ** 2;
const namespaces = ["pid", "network", "ipc", "uts", "mount", "cgroup"].map((type) => ({ type }));

/** The lines of a container's cgroup files in the guest, by name. */
async function limits(host: Host, id: string): Promise<Record<string, string>> {
  const files = ["memory.max", "memory.low", "cpu.max", "cpu.weight", "pids.max"];
  const text = await host.ok("exec", id, "sh", "-c", `cd /sys/fs/cgroup; for file in ${files.join(" ")}; do echo $file=$(cat $file); done`);
  return Object.fromEntries(
    text
      .trimEnd()
      .split("\n")
      .map((line) => line.split("=") as [string, string]),
  );
}

test.runIf(isHusk)("update changes what is named, and nothing else, by flags and by a file", async ({ host }) => {
  const resources = { memory: { limit: 128 * MIB }, cpu: { quota: 50_000, period: 100_000 }, pids: { limit: 100 } };
  const { id, foreground } = await host.running(
    host.script("echo ready; read line", { linux: { namespaces, cgroupsPath: "/husk-test/x", resources } }),
    {
      stdin: "pipe",
    },
  );
  const before = { "memory.max": String(128 * MIB), "memory.low": "0", "cpu.max": "50000 100000", "cpu.weight": "100", "pids.max": "100" };
  expect(await limits(host, id)).toEqual(before);
  await host.ok("update", id);
  expect(await limits(host, id)).toEqual(before);
  await host.ok("update", "--memory", "64m", "--memory-reservation=32MiB", "--cpu-period", "50000", "--pids-limit", "-1", id);
  const after = { ...before, "memory.max": String(64 * MIB), "memory.low": String(32 * MIB), "cpu.max": "50000 50000", "pids.max": "max" };
  expect(await limits(host, id)).toEqual(after);

  const file = host.path("resources.json");
  writeFileSync(file, JSON.stringify({ cpu: { shares: 512, quota: 25_000 }, unified: { "memory.high": "50000000" } }));
  await host.ok("update", "--resources", file, "--memory", "32m", id);
  expect(await limits(host, id)).toEqual({ ...after, "cpu.max": "25000 50000", "cpu.weight": "20" });
  expect(await host.ok("exec", id, "cat", "/sys/fs/cgroup/memory.high")).toBe("49999872\n");
  expect(readFileSync("/sys/fs/cgroup/cpu/husk-test/x/cpu.shares", "utf8")).toBe("512\n");

  for (const idle of ["1", "0"]) {
    await host.ok("update", "--cpu-idle", idle, id);
    expect(await host.ok("exec", id, "cat", "/sys/fs/cgroup/cpu.idle")).toBe(`${idle}\n`);
  }

  const piped = host.launch(["update", "-r", "-", id], { stdin: "pipe" });
  piped.stdin.end(JSON.stringify({ pids: { limit: 50 }, devices: null }));
  expect(await piped.ended()).toEqual({ status: 0, stdout: "", stderr: "" });
  await host.ok("pause", id);
  await host.ok("update", "--cpuset-cpus", "0", "--cpu-quota=-1", id);
  await host.ok("resume", id);
  expect(await limits(host, id)).toMatchObject({ "pids.max": "50", "cpu.max": "max 50000" });
  expect(readFileSync("/sys/fs/cgroup/cpuset/husk-test/x/cpuset.cpus", "utf8")).toBe("0\n");

  for (const [flags, words] of [
    [["--cpu-share", "many"], "--cpu-share: expected a whole number"],
    [["--memory", "1x"], "--memory: expected a size such as 512m"],
    [["--cpu-rt-runtime", "1000"], "update: linux.resources.cpu.realtimeRuntime: cgroup v2"],
    [["--l3-cache-schema", "L3:0=f"], "--l3-cache-schema: the host's resctrl groups"],
    [["--memory", "1p"], "linux.resources.memory.limit: it needs a virtual machine with "],
    [["--resources", "/not/there"], "cannot read /not/there"],
  ] as const) {
    const { status, stderr } = await host.runtime("update", ...flags, id);
    expect({ status: status === 0, stderr }).toEqual({ status: false, stderr: expect.stringContaining(words) });
  }
  expect(await limits(host, id)).toMatchObject({ "memory.max": String(64 * MIB), "pids.max": "50" });
  foreground.stdin.end("\n");
  expect((await foreground.ended()).status).toBe(0);
});

test("update and events of a container that is not there, and of one that has ended", async ({ host }) => {
  const { id, program } = await host.create(host.script("true"));
  await host.ok("start", id);
  await program.ended();
  await host.until(async () => (await host.state(id)).status === "stopped");
  expect((await host.runtime("update", "--pids-limit", "5", id)).stderr).toMatch(/container not running/);
  expect((await host.runtime("events", "--stats", id)).stderr).toMatch(/is not running/);
  for (const verb of ["update", "events"])
    expect((await host.runtime(verb, "nobody")).stderr).toMatch(/container (does not exist|"nobody" does not exist)/);
  await host.ok("delete", id);
});

test("events: statistics in runc's form, each kill for want of memory as it happens, and the end with the container's", async ({
  host,
}) => {
  const script = "dd if=/dev/zero of=/dev/null count=2000 2>/dev/null; echo ready; read line; tail /dev/zero; read line";
  const resources = { memory: { limit: 64 * MIB }, pids: { limit: 20 } };
  const { id, foreground } = await host.running(host.script(script, { linux: { resources } }), { stdin: "pipe" });
  const {
    type,
    id: whose,
    data,
  } = JSON.parse(await host.ok("events", "--stats", id)) as {
    type: string;
    id: string;
    data: Record<"cpu" | "memory", Record<string, Record<string, number>>> & { pids: { current: number; limit?: number } };
  };
  expect([type, whose]).toEqual(["stats", id]);
  expect(data.cpu["usage"]?.["total"]).toBeGreaterThan(1_000_000);
  expect(data.memory["usage"]).toMatchObject({ limit: 64 * MIB, failcnt: 0 });
  expect(data.memory["usage"]?.["usage"]).toBeGreaterThan(100_000);
  expect(data.memory["raw"]).toHaveProperty(either({ husk: "anon", runc: "rss" }));
  expect(data.pids).toMatchObject(either({ husk: { current: 1, limit: 20 }, runc: { current: 1, limit: 20 } }));

  const watch = host.launch(["events", "--interval", "100ms", id]);
  await watch.stdout?.until('"type":"stats"');
  foreground.stdin.write("\n");
  await watch.stdout?.until(`{"type":"oom","id":"${id}"}`);
  foreground.stdin.end("\n");
  await foreground.ended();
  expect((await watch.ended()).status).toBe(0);
});

test.runIf(isHusk)("events: end without a word where the container is deleted", async ({ host }) => {
  const { id, foreground } = await host.running(host.script("echo ready; exec sleep 1000"));
  const watch = host.launch(["events", "--interval", "10ms", id]);
  await watch.stdout?.until('"type":"stats"');
  await host.ok("delete", "--force", id);
  expect(await watch.ended()).toMatchObject({ status: 0, stderr: "" });
  expect((await foreground.ended()).status).toBe(137);
});

test.runIf(isHusk)("events: an interval that is none", async ({ host }) => {
  const { status, stderr } = await host.runtime("events", "--interval", "5", "x");
  expect(status).not.toBe(0);
  expect(stderr).toContain('--interval: expected a time such as 500ms, 5s or 1m30s, got "5"');
});
