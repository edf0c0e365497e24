/** create, start, state, kill, pause, resume, ps, list, delete: one container from its beginning to its end. */
import { execFileSync } from "node:child_process";
import { existsSync, readFileSync, readlinkSync, writeFileSync } from "node:fs";
import { expect } from "vitest";
import { test } from "../harness/host.ts";
import { either, isHusk } from "../harness/runtime.ts";

test("create, start, end, delete, with the state at each step", async ({ host }) => {
  const bundle = host.script("echo started; cat /etc/hostname; exit 7", { annotations: { "org.example.key": "value" } });
  writeFileSync(`${bundle.rootfs}/etc/hostname`, "in the bundle\n");
  const { id, program } = await host.create(bundle, ["--pid-file", host.path("pid")]);

  const created = await host.state(id);
  expect(created).toEqual({
    ociVersion: expect.stringMatching(/^1\.\d+\.\d+/),
    id,
    pid: Number(readFileSync(host.path("pid"), "utf8")),
    status: "created",
    bundle: bundle.path,
    rootfs: bundle.rootfs,
    created: expect.stringMatching(/^20\d\d-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z$/),
    annotations: { "org.example.key": "value" },
    owner: either({ husk: "root", runc: "" }),
  });
  expect(program.stdout?.text()).toBe("");

  await host.ok("start", id);
  expect((await program.ended()).stdout).toBe("started\nin the bundle\n");
  expect(await host.state(id)).toMatchObject({ id, pid: 0, status: "stopped", annotations: { "org.example.key": "value" } });
  await host.ok("delete", id);
  expect((await host.runtime("state", id)).status).toBe(1);
});

test("whoever has read a container's output to its end finds it stopped, and can delete it", async ({ host }) => {
  const { id, program } = await host.create(host.script("echo out; echo err >&2; exit 3"));
  await host.ok("start", id);
  const { stdout, stderr } = await program.ended();
  // At this very moment: what asks for the state takes its time.
  if (isHusk)
    expect(JSON.parse(readFileSync(`${host.root}/${id}/state.json`, "utf8"))).toMatchObject({ status: "stopped", exit: { code: 3 } });
  expect({ stdout, stderr }).toEqual({ stdout: "out\n", stderr: "err\n" });
  expect(await host.state(id)).toMatchObject({ status: "stopped", pid: 0 });
  expect(await host.runtime("kill", id)).toMatchObject({ status: 1, stderr: expect.stringContaining("container not running") });
  expect(await host.ok("delete", id)).toBe("");
});

test("an output that the program closes ends at once, and the program goes on", async ({ host }) => {
  const { id, program } = await host.create(host.script("echo out; exec >&- 2>&-; exec sleep 1000"));
  await host.ok("start", id);
  expect((await program.ended()).stdout).toBe("out\n");
  expect(await host.state(id)).toMatchObject({ status: "running" });
  await host.ok("kill", id, "KILL");
  await host.until(async () => (await host.state(id)).status === "stopped");
  await host.ok("delete", id);
});

test("the advertised PID shows the container's files and network, never the host's", async ({ host }) => {
  const bundle = host.script("echo ready; read line", { hostname: "apart" });
  writeFileSync(`${bundle.rootfs}/only-here`, "the container's\n");
  const { id, foreground } = await host.running(bundle, { stdin: "pipe" });
  const { pid } = await host.state(id);
  expect(readFileSync(`/proc/${pid}/root/only-here`, "utf8")).toBe("the container's\n");
  expect(existsSync(`/proc/${pid}/root${host.folder}`)).toBe(false);
  for (const kind of ["net", "mnt"]) expect(readlinkSync(`/proc/${pid}/ns/${kind}`)).not.toBe(readlinkSync(`/proc/self/ns/${kind}`));
  foreground.stdin.end("\n");
  expect((await foreground.ended()).status).toBe(0);
});

test("kill sends signals by number, name and short name", async ({ host }) => {
  const script =
    "for s in HUP USR1 USR2 TERM; do trap \"echo $s\" $s; done; trap 'echo INT; exit 8' INT; echo ready; while :; do sleep 1000 & wait; done";
  const { id, foreground } = await host.running(host.script(script));
  for (const [given, expected] of [
    ["1", "HUP"],
    ["SIGUSR1", "USR1"],
    ["usr2", "USR2"],
  ] as const) {
    await host.ok("kill", id, given);
    await foreground.stdout?.until(`${expected}\n`);
  }
  await host.ok("kill", id); // TERM, unless said
  await foreground.stdout?.until("TERM\n");
  await host.ok("kill", id, "INT");
  expect((await foreground.ended()).status).toBe(8);
});

test("a signal to the advertised PID is the container's: SIGTERM is delivered, SIGKILL ends it", async ({ host }) => {
  const { id, foreground } = await host.running(host.script("trap 'echo told' TERM; echo ready; while :; do sleep 1000 & wait; done"));
  const { pid } = await host.state(id);
  process.kill(pid, "SIGTERM");
  await foreground.stdout?.until("told\n");
  process.kill(pid, "SIGKILL");
  expect((await foreground.ended()).status).toBe(137);
});

test("a signal that comes right behind the start is not lost", async ({ host }) => {
  const { id, program } = await host.create(host.script("trap 'echo heard; exit' TERM; sleep 1000 & wait $!"));
  await host.ok("start", id);
  await host.ok("kill", id, "TERM");
  expect((await program.ended()).stdout).toBe("heard\n");
  await host.ok("delete", id);
});

test("kill -9 of a detached container's PID stops it", async ({ host }) => {
  const { id, program } = await host.create(host.script("echo ready; exec sleep 1000"));
  await host.ok("start", id);
  await program.stdout?.until("ready\n");
  process.kill((await host.state(id)).pid, "SIGKILL");
  await program.ended();
  await host.until(async () => (await host.state(id)).status === "stopped");
  await host.ok("delete", id);
});

test.runIf(isHusk)("a start while the container is being created waits for that", async ({ host }) => {
  const gate = host.path("gate");
  execFileSync("mkfifo", [gate]);
  const hook = { path: "/bin/sh", args: ["sh", "-c", `echo begun >>${gate}.log; read line <${gate}`], env: ["PATH=/bin"] };
  const bundle = host.script("echo started", { hooks: { createRuntime: [hook] } });
  const id = host.name();
  const create = host.launch(["create", "--bundle", bundle.path, id]);
  await host.until(() => existsSync(`${gate}.log`));
  const start = host.launch(["start", id]);
  writeFileSync(gate, "\n");
  expect(await start.ended()).toEqual({ status: 0, stdout: "", stderr: "" });
  expect((await create.ended()).stdout).toBe("started\n");
  await host.until(async () => (await host.state(id)).status === "stopped");
  await host.ok("delete", id);
});

test("a created container that never started can be killed, and deleted by force", async ({ host }) => {
  for (const signal of ["KILL", "TERM"]) {
    const killed = await host.create(host.script("echo never"));
    await host.ok("kill", killed.id, signal);
    await host.until(async () => (await host.state(killed.id)).status === "stopped");
    await host.ok("delete", killed.id);
    expect((await killed.program.ended()).stdout).toBe("");
  }
  const forced = await host.create(host.script("echo never"));
  await host.ok("delete", "--force", forced.id);
  expect((await forced.program.ended()).stdout).toBe("");
});

test("delete --force ends a running container", async ({ host }) => {
  const { id, foreground } = await host.running(host.script("echo ready; exec sleep 1000"));
  await host.ok("delete", "--force", id);
  expect((await foreground.ended()).status).toBe(137);
});

test("pause stops the container's work until resume", async ({ host }) => {
  const { id, foreground } = await host.running(host.script("echo ready; while read line; do echo got $line; done"), { stdin: "pipe" });
  await host.ok("pause", id);
  expect((await host.state(id)).status).toBe("paused");
  foreground.stdin.write("a line\n");
  // That nothing happens has no event: what would answer at once says nothing for a while.
  await expect(foreground.stdout?.until("got a line\n", 500)).rejects.toThrow("no got a line");
  expect((await host.runtime("exec", id, "true")).status).toBe(255);
  await host.ok("resume", id);
  await foreground.stdout?.until("got a line\n");
  expect((await host.state(id)).status).toBe("running");
  foreground.stdin.end();
  expect((await foreground.ended()).status).toBe(0);
});

test("a paused container can be killed and deleted", async ({ host }) => {
  const { id, foreground } = await host.running(host.script("echo ready; exec sleep 1000"));
  await host.ok("pause", id);
  await host.ok("delete", "--force", id);
  expect((await foreground.ended()).status).toBe(137);
});

test("list and ps show what runs", async ({ host }) => {
  const first = await host.running(host.script("sleep 4321 & echo ready; read line; kill $!"), { stdin: "pipe" });
  const second = await host.create(host.script("true"));
  expect(await host.ok("list", "-q")).toBe(`${first.id}\n${second.id}\n`);
  const listed = JSON.parse(await host.ok("list", "--format", "json")) as { id: string; status: string }[];
  expect(listed).toMatchObject([
    { id: first.id, status: "running" },
    { id: second.id, status: "created" },
  ]);
  const table = (await host.ok("list")).trimEnd().split("\n");
  expect(table[0]).toMatch(/^ID +PID +STATUS +BUNDLE +CREATED +OWNER$/);
  expect(table.slice(1).map((row) => row.split(/ +/)[2])).toEqual(["running", "created"]);

  const processes = (await host.ok("ps", first.id)).trimEnd().split("\n");
  expect(processes[0]).toMatch(/^UID +PID +PPID +C +STIME +TTY +TIME +CMD$/);
  expect(
    processes
      .slice(1)
      .map((row) => row.replace(/^.*\d\d:\d\d:\d\d +/, ""))
      .sort(),
  ).toEqual(["sh -c sleep 4321 & echo ready; read line; kill $!", "sleep 4321"]);
  first.foreground.stdin.end("\n");
  expect((await first.foreground.ended()).status).toBe(0);
  await host.ok("delete", "--force", second.id);
});

test("two containers run beside each other, and know nothing of each other", async ({ host }) => {
  const script = "hostname >/tmp/$(hostname); echo ready; read line; hostname; ls /tmp";
  const first = await host.running(host.script(script, { hostname: "one" }), { stdin: "pipe" });
  const second = await host.running(host.script(script, { hostname: "two" }), { stdin: "pipe" });
  first.foreground.stdin.end("\n");
  second.foreground.stdin.end("\n");
  expect((await first.foreground.ended()).stdout).toBe("ready\none\none\n");
  expect((await second.foreground.ended()).stdout).toBe("ready\ntwo\ntwo\n");
});
