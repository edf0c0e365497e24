/** husk's shim when parts of a sandbox are killed, or stand still: containerd is told of the end, and nothing is left. */
import { writeFileSync } from "node:fs";
import { join } from "node:path";
import { setTimeout as delay } from "node:timers/promises";
import { expect } from "vitest";
import { GrpcCode } from "../../src/errors.ts";
import { Containerd } from "../harness/containerd.ts";
import { test as base } from "../harness/engines.ts";
import { isHusk } from "../harness/runtime.ts";

/** So long may a call to the guest take in these tests, and so long a guest that is to kill its container; in milliseconds. */
const [callMs, stopMs] = [2_000, 1_000];

/** How soon after a death containerd must be told of the end. */
const toldMs = 1_000;

const test = base.extend("containerd", { scope: "file" }, async ({ engines }) => {
  const config = join(engines.folder, "husk.toml");
  writeFileSync(config, `[deadlines]\ncall_s = ${callMs / 1000}\nstop_s = ${stopMs / 1000}\n`);
  return Containerd.start(engines, { HUSK_CONFIG: config });
});

/** Waits for a process that is not there yet. */
async function found<T extends { readonly pid: number }>(look: () => T | undefined): Promise<T> {
  for (;;) {
    const process = look();
    if (process !== undefined) return process;
    await delay(5);
  }
}

/** Kills something of a running task, and says what containerd was told, and how soon. */
async function exitAfter(containerd: Containerd, kill: () => void): Promise<{ status: unknown; tookMs: number }> {
  let killed = 0;
  const events = await containerd.events("/tasks/exit", async () => {
    killed = Date.now();
    kill();
  });
  const exit = events.find(({ topic }) => topic === "/tasks/exit");
  const told = Date.parse(String(exit?.body["exited_at"]));
  return { status: exit?.body["exit_status"], tookMs: told - killed };
}

test.runIf(isHusk)("the shim killed while the VM boots: the caller is told, and nothing is left", async ({ containerd }) => {
  const program = containerd.run("box", ["--rm"], ["true"]);
  const { pid } = await found(() => containerd.qemu("box") && containerd.shimProcess("box"));
  process.kill(pid, "SIGKILL");
  expect(await program.ended()).toMatchObject({ status: 1, stderr: expect.stringMatching(/ttrpc: closed|unavailable|shim/) });
});

test.runIf(isHusk)("the shim killed while the task runs, with an exec in it", async ({ containerd, engines }) => {
  await containerd.detached("box", [], ["sleep", "1000"], async () => {
    const exec = containerd.ctr.start(["task", "exec", "--exec-id", "e", "box", "sh", "-c", "echo ready; sleep 1000"]);
    await exec.stdout?.until("ready\n");
    const { pid } = await found(() => containerd.shimProcess("box"));
    const { status, tookMs } = await exitAfter(containerd, () => process.kill(pid, "SIGKILL"));
    expect(status).toBe(137);
    expect(tookMs).toBeLessThan(toldMs);
    exec.signal("SIGKILL"); // containerd 1.6 does not tell it of the exec's end
    await exec.ended();
  });
  await engines.inside("sh", "-c", "rm -r /run/containerd/fifo/*"); // ctr's own: of the exec it was killed in, and of a task that was gone before it
});

test.runIf(isHusk)("QEMU killed: the task ends with 137, and can be deleted", async ({ containerd }) => {
  await containerd.detached("box", [], ["sleep", "1000"], async () => {
    const { pid } = await found(() => containerd.qemu("box"));
    const { status, tookMs } = await exitAfter(containerd, () => process.kill(pid, "SIGKILL"));
    expect(status).toBe(137);
    expect(tookMs).toBeLessThan(toldMs);
    expect((await containerd.ctr.run("task", "rm", "box")).stderr).toMatch(/exit code 137/);
  });
});

test.runIf(isHusk)("a guest that stands still: every call ends in its deadline, Kill and Delete work", async ({ containerd }) => {
  const id = "box";
  await containerd.detached(id, [], ["sleep", "1000"], async () => {
    const { pid } = await found(() => containerd.qemu(id));
    process.kill(pid, "SIGSTOP");
    await containerd.shim(id, async (call) => {
      const late = { grpcCode: GrpcCode.deadlineExceeded };
      const spec = Buffer.from(JSON.stringify({ args: ["true"], cwd: "/", user: { uid: 0, gid: 0 } }));
      await call("exec", { id, execId: "e", spec: { typeUrl: "types.containerd.io/opencontainers/runtime-spec/1/Process", value: spec } });
      await Promise.all([
        expect(call("stats", { id })).rejects.toMatchObject(late),
        expect(call("pause", { id })).rejects.toMatchObject(late),
        expect(call("kill", { id, signal: 15 })).rejects.toMatchObject(late),
        expect(call("start", { id, execId: "e" })).rejects.toMatchObject(late),
        expect(call("state", { id })).resolves.toMatchObject({ id }),
        expect(call("pids", { id })).resolves.toMatchObject({ processes: [{}] }),
      ]);
      const waited = call("wait", { id });
      await call("kill", { id, signal: 9 });
      expect(await waited).toMatchObject({ exitStatus: 137 });
    });
    expect((await containerd.ctr.run("task", "rm", id)).stderr).toMatch(/exit code 137/);
  });
});
