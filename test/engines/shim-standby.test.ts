/** husk's shim that stands by for the next task, where a template is kept warm. */
import { mkdirSync, readFileSync, readlinkSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { setTimeout as delay } from "node:timers/promises";
import { expect } from "vitest";
import { Containerd } from "../harness/containerd.ts";
import { test as base, type Engines } from "../harness/engines.ts";
import { readProcess } from "../harness/processes.ts";
import { isHusk } from "../harness/runtime.ts";
import { endKeepers, StandingShims, shimPools, warmEnvironment } from "../harness/standing-shims.ts";

const test = base.extend("containerd", { scope: "file" }, ({ engines }) => Containerd.start(engines, warmEnvironment(engines)));

/** A shim that stands by for what `ctr run` runs. */
function ready(engines: Engines, containerd: Containerd): Promise<StandingShims> {
  return StandingShims.ready(engines, async () => {
    expect(await containerd.ran("warm", [], "true")).toEqual({ status: 0, stdout: "", stderr: "" });
  });
}

/** Which process serves a task in the background. */
async function served(
  containerd: Containerd,
  id: string,
  use: (pid: number) => Promise<unknown> = async () => {},
  flags: readonly string[] = [],
): Promise<number> {
  let pid = 0;
  await containerd.detached(id, flags, ["sleep", "1000"], async () => {
    pid = containerd.shimProcess(id)?.pid ?? 0;
    await use(pid);
  });
  return pid;
}

/** What a process has of whoever started it. */
function inherited(pid: number): object {
  const text = (name: string): string => readFileSync(`/proc/${pid}/${name}`, "utf8");
  return {
    umask: /^Umask:.*$/m.exec(text("status"))?.[0],
    cgroups: text("cgroup"),
    // Node makes the soft limit on descriptors the hard one.
    limits: text("limits").replace(/^(Max open files +)\S+ /m, "$1"),
    streams: [0, 1, 2].map((number) => readlinkSync(`/proc/${pid}/fd/${number}`)),
    cwd: readlinkSync(`/proc/${pid}/cwd`).replace(/[^/]+$/, ""),
    oom: text("oom_score_adj"),
  };
}

test.runIf(isHusk)("the next task is served by the shim that stood by, as by one that was started", async ({ engines, containerd }) => {
  await using standing = await ready(engines, containerd);
  const { pid } = await standing.untilOneWaits();
  let started: object = {};
  let taken: object = {};
  await served(containerd, "one", async (serving) => {
    expect(serving).toBe(pid);
    taken = inherited(pid);
    expect(await containerd.ctr.ok("task", "exec", "--exec-id", "e", "one", "cat", "/proc/sys/kernel/hostname")).not.toBe("");
    // While it has gone, and before the next one waits, a shim is started: it takes a second of this machine to make one.
    await served(
      containerd,
      "two",
      async (other) => {
        started = inherited(other);
      },
      ["--memory-limit", String(200 * 1024 * 1024)],
    );
  });
  const log = (streams: object): object => JSON.parse(JSON.stringify(streams).replaceAll(/\/(one|two)\/log/g, "/ID/log")) as object;
  expect(log(taken)).toEqual(log(started));
  const next = await standing.untilOneWaits();
  expect(next.pid).not.toBe(pid);
  const words = ["sh", "-c", "cat; echo err >&2; exit 7"];
  const program = containerd.run("three", ["--rm"], words, { stdin: "pipe" });
  program.child.stdin?.end("in\n");
  expect(await program.ended()).toEqual({ status: 7, stdout: "in\n", stderr: "err\n" });
  await expect.poll(() => readProcess(next.pid), { timeout: 10_000 }).toBeUndefined();
});

test.runIf(isHusk)("a task that needs another machine has one of its own, and the shim stands by on", async ({ engines, containerd }) => {
  await using standing = await ready(engines, containerd);
  const { pid } = await standing.untilOneWaits();
  expect(await served(containerd, "large", undefined, ["--memory-limit", String(200 * 1024 * 1024)])).not.toBe(pid);
  expect((await standing.untilOneWaits()).pid).toBe(pid);
  expect(await served(containerd, "plain")).toBe(pid);
});

test.runIf(isHusk)("a task's network namespace may be one of others, whose links it has", async ({ engines, containerd }) => {
  await using standing = await ready(engines, containerd);
  const { pid } = await standing.untilOneWaits();
  const ip = (args: string): Promise<string> => engines.inside("ip", ...args.split(" "));
  await ip("netns add given");
  await ip("link add far type veth peer name eth0 netns given");
  for (const args of ["address add 10.94.8.1/24 dev far", "link set far up"]) await ip(args);
  for (const args of ["address add 10.94.8.2/24 dev eth0", "link set eth0 mtu 1400 up"]) await ip(`-n given ${args}`);
  const links = async (): Promise<unknown> => (await ip("-n given -o link")).match(/^\d+: [^:@]+/gm);
  const before = await links();
  const use = async (): Promise<void> => {
    const look = "ip -o address show eth0; ip link show eth0; ping -c 1 -q -W 20 10.94.8.1";
    const inside = await containerd.ctr.ok("task", "exec", "--exec-id", "e", "given", "sh", "-c", look);
    for (const part of ["10.94.8.2/24", "mtu 1400", "1 packets received"]) expect(inside).toContain(part);
    expect(await links()).toContainEqual(expect.stringMatching(/ husk0$/));
    // Another one in that namespace joins it.
    expect(await served(containerd, "beside", undefined, ["--with-ns", "network:/run/netns/given"])).toBe(0);
  };
  expect(await served(containerd, "given", use, ["--with-ns", "network:/run/netns/given"])).toBe(pid);
  expect(await links()).toEqual(before);
  await ip("link delete far");
  await ip("netns delete given");
});

test.runIf(isHusk)("killed while it waits, and silent, it costs the next task nothing but its start", async ({ engines, containerd }) => {
  await using standing = await ready(engines, containerd);
  const { pid } = await standing.untilOneWaits();
  process.kill(pid, "SIGSTOP");
  expect(await served(containerd, "first")).not.toBe(pid);
  process.kill(pid, "SIGCONT");
  await expect.poll(() => standing.waiting?.pid, { timeout: 10_000 }).toBe(pid);
  expect(await served(containerd, "second")).toBe(pid);
  const next = await standing.untilOneWaits();
  process.kill(next.pid, "SIGKILL");
  expect(await served(containerd, "third")).not.toBe(next.pid);
});

test.runIf(isHusk)("killed when a task has it, containerd is told, and nothing is left", async ({ engines, containerd }) => {
  await using standing = await ready(engines, containerd);
  const { pid } = await standing.untilOneWaits();
  await served(containerd, "box", async (serving) => {
    expect(serving).toBe(pid);
    await endKeepers(engines);
    expect(await containerd.ctr.ok("task", "exec", "--exec-id", "e", "box", "echo", "alive")).toBe("alive\n");
    const events = await containerd.events("/tasks/exit", async () => process.kill(pid, "SIGKILL"));
    expect(events.find(({ topic }) => topic === "/tasks/exit")?.body).toMatchObject({ exit_status: 137 });
  });
  await engines.inside("sh", "-c", "rm -rf /run/containerd/fifo/*"); // ctr's own
});

test.runIf(isHusk)(
  "killed at any moment of its taking, the task runs, or the caller is told, and nothing is left",
  async ({ engines, containerd }) => {
    await using standing = await ready(engines, containerd);
    const outcomes: number[] = [];
    for (const afterMs of [0, 40, 60, 80, 110, 150, 200, 300, 450]) {
      const { pid } = await standing.untilOneWaits();
      const program = containerd.run("box", ["--rm"], ["echo", "hello"]);
      await delay(afterMs);
      // At the later moments all may be over on a fast host.
      if (readProcess(pid) !== undefined) process.kill(pid, "SIGKILL");
      const { status, stdout, stderr } = await program.ended();
      outcomes.push(status);
      if (status === 0) expect({ stdout, stderr }).toEqual({ stdout: "hello\n", stderr: "" });
      else expect(status === 137 ? "killed" : stderr).toMatch(/killed|ttrpc: closed|unavailable|shim|not found/);
      await containerd.remove("box");
      await expect.poll(() => containerd.shimProcess("box"), { timeout: 10_000 }).toBeUndefined();
    }
    expect(outcomes[0]).toBe(0);
    await engines.inside("sh", "-c", "rm -rf /run/containerd/fifo/*"); // ctr's own
  },
);

test.runIf(isHusk).for([
  ["dies", "process.exit(1)"],
  ["dies when it listens already", "require('net').createServer().listen(socket, () => process.exit(1))"],
  ["is silent when it listens already", "require('net').createServer().listen(socket)"],
])("one that %s when it is to serve is ended, and another one is started", async ([, does], { engines, containerd }) => {
  const pool = join(engines.folder, "pools", `other${shimPools}`);
  mkdirSync(pool, { recursive: true });
  const script = join(engines.folder, "odd.cjs");
  writeFileSync(
    script,
    `const say = (to, event) => to.write(JSON.stringify({ event }) + "\\n");
let socket = "";
require("net").createServer((start) => start.on("data", (data) => {
  const { words, op } = JSON.parse(data);
  if (op === "serve") { ${does}; return; }
  socket = words[words.indexOf("-socket") + 1];
  say(start, "suits");
})).listen(${JSON.stringify(join(pool, "1.sock"))}, () => console.log("waits"));`,
  );
  const odd = engines.start([process.execPath, script]);
  await odd.stdout?.until("waits\n");
  expect(await containerd.ran("box", [], "echo", "hello")).toEqual({ status: 0, stdout: "hello\n", stderr: "" });
  await odd.exited();
  rmSync(join(engines.folder, "pools"), { recursive: true });
  await endKeepers(engines);
});
