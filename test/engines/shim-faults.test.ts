/** husk's shim when parts of a sandbox are killed, or stand still: containerd is told of the end, and nothing is left. */
import { execFileSync } from "node:child_process";
import { rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { setTimeout as delay } from "node:timers/promises";
import { expect } from "vitest";
import { GrpcCode } from "../../src/errors.ts";
import { type Bundle, makeBundle } from "../harness/bundle.ts";
import { Containerd, type ShimCall } from "../harness/containerd.ts";
import { test as base, type Engines } from "../harness/engines.ts";
import { isHusk } from "../harness/runtime.ts";

/** So long may a call to the guest take in these tests, and so long a guest that is to kill its container; in milliseconds. */
const [callMs, stopMs] = [2_000, 1_000];

/** How soon after a death containerd must be told of the end. */
const toldMs = 1_000;

const test = base.extend("containerd", { scope: "file" }, async ({ engines }) => {
  const config = join(engines.folder, "husk.toml");
  writeFileSync(config, `[template]\nwarm_s = 0\n[deadlines]\ncall_s = ${callMs / 1000}\nstop_s = ${stopMs / 1000}\n`);
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

test.runIf(isHusk)(
  "the caller killed while the VM boots: containerd gives the task up, and the shim ends with all that it made",
  async ({ containerd, engines }) => {
    const program = containerd.run("box", [], ["true"]);
    const { pid } = await found(() => containerd.qemu("box") && containerd.shimProcess("box"));
    program.signal("SIGKILL");
    await program.ended();
    await expect.poll(() => containerd.shimProcess("box")?.pid === pid, { timeout: 60_000 }).toBe(false);
    await containerd.remove("box");
    await engines.inside("sh", "-c", "rm -rf /run/containerd/fifo/*"); // ctr's own
  },
);

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

/** A bundle of another container for the VM of the task whose stand-in's PID that is. */
function besides(engines: Engines, name: string, pid: number, args: readonly string[]): Bundle {
  const namespaces = ["pid", "ipc", "uts", "mount"].map((type) => ({ type }));
  return makeBundle(join(engines.folder, name), {
    process: { args },
    linux: { namespaces: [...namespaces, { type: "network", path: `/proc/${pid}/ns/net` }], cgroupsPath: `/husk-test/${name}` },
  });
}

/** Runs `use` beside a task that is well, and sees that it stays so. */
async function beside(containerd: Containerd, use: (call: ShimCall, pid: number) => Promise<void>): Promise<void> {
  await containerd.detached("box", [], ["sleep", "1000"], async () => {
    await containerd.shim("box", async (call) => {
      const { taskPid } = await call("connect", { id: "box" });
      await use(call, taskPid);
      expect((await containerd.ctr.run("task", "exec", "--exec-id", "after", "box", "true")).status).toBe(0);
    });
  });
}

test.runIf(isHusk)("a task that was created and never started can be deleted, and made again", async ({ containerd, engines }) => {
  await beside(containerd, async (call, pid) => {
    const { path: bundle } = besides(engines, "created", pid, ["true"]);
    for (let round = 0; round < 2; round++) {
      await call("create", { id: "created", bundle });
      expect(await call("state", { id: "created" })).toMatchObject({ status: 1 });
      expect(await call("delete", { id: "created" })).toMatchObject({ exitStatus: 137 });
      await expect(call("state", { id: "created" })).rejects.toMatchObject({ grpcCode: GrpcCode.notFound });
    }
    await call("create", { id: "created", bundle });
    await call("start", { id: "created" });
    expect(await call("wait", { id: "created" })).toMatchObject({ exitStatus: 0 });
    await call("delete", { id: "created" });
    rmSync(bundle, { recursive: true });
  });
});

test.runIf(isHusk)("a bundle that is gone, and options that nobody knows: refused, with nothing left", async ({ containerd, engines }) => {
  await beside(containerd, async (call, pid) => {
    const { path: bundle, rootfs } = besides(engines, "gone", pid, ["true"]);
    const options = { typeUrl: "io.example.Options", value: Buffer.from("x") };
    await expect(call("create", { id: "gone", bundle, options })).rejects.toMatchObject({
      grpcCode: GrpcCode.invalidArgument,
      message: expect.stringContaining('the runtime options are of an unknown type, "io.example.Options"'),
    });
    rmSync(rootfs, { recursive: true });
    await expect(call("create", { id: "gone", bundle })).rejects.toMatchObject({ message: expect.stringContaining("rootfs") });
    rmSync(bundle, { recursive: true });
    await expect(call("create", { id: "gone", bundle })).rejects.toMatchObject({
      grpcCode: GrpcCode.notFound,
      message: expect.stringContaining(`bundle ${bundle} does not exist`),
    });
    await expect(call("delete", { id: "gone" })).rejects.toMatchObject({ grpcCode: GrpcCode.notFound });
  });
});

test.runIf(isHusk)("FIFOs that nobody reads or writes: starts, ends and deletes wait for nobody", async ({ containerd, engines }) => {
  await beside(containerd, async (call) => {
    const [stdin = "", stdout = ""] = ["in", "out"].map((name) => join(engines.folder, `fifo-${name}`));
    execFileSync("mkfifo", [stdin, stdout]);
    const process = { cwd: "/", user: { uid: 0, gid: 0 }, env: ["PATH=/bin"], args: ["sh", "-c", "yes; cat"] };
    const spec = { typeUrl: "types.containerd.io/opencontainers/runtime-spec/1/Process", value: Buffer.from(JSON.stringify(process)) };
    const target = { id: "box", execId: "unread" };
    await call("exec", { ...target, spec, stdin, stdout });
    await call("start", target);
    expect(await call("state", target)).toMatchObject({ status: 2 });
    await call("kill", { ...target, signal: 9 });
    expect(await call("wait", target)).toMatchObject({ exitStatus: 137 });
    await call("delete", target);
    for (const path of [stdin, stdout]) rmSync(path);
  });
});
