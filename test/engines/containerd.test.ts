/** containerd 1.6 with husk's shim: what ctr's users do, the Task API's answers, and what must outlive a containerd. */
import { execFileSync } from "node:child_process";
import { existsSync, mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { availableParallelism } from "node:os";
import { join } from "node:path";
import { expect } from "vitest";
import { GrpcCode } from "../../src/errors.ts";
import { Status } from "../../src/gen/containerd/types/task.ts";
import { makeRootfs } from "../harness/bundle.ts";
import { Containerd } from "../harness/containerd.ts";
import { test as base } from "../harness/engines.ts";
import { listProcesses } from "../harness/processes.ts";
import { Program } from "../harness/program.ts";
import { expectRuncOptions } from "../harness/runc-options.ts";
import { either, isHusk } from "../harness/runtime.ts";
import { Terminal } from "../harness/terminal.ts";

const test = base.extend("containerd", { scope: "file" }, ({ engines }) => Containerd.start(engines));

/** A process for Exec. */
function process(...args: readonly string[]): { typeUrl: string; value: Buffer } {
  const value = { args, cwd: "/", env: ["PATH=/bin"], user: { uid: 0, gid: 0 } };
  return { typeUrl: "types.containerd.io/opencontainers/runtime-spec/1/Process", value: Buffer.from(JSON.stringify(value)) };
}

test("run: the status, the streams and their ends, the environment, mounts", async ({ containerd, engines }) => {
  const shared = join(engines.folder, "shared");
  mkdirSync(shared);
  writeFileSync(join(shared, "file"), "from the host\n");
  const mount = ["--mount", `type=bind,src=${shared},dst=/shared,options=rbind:ro`];
  const script = "echo ready; cat; echo $A; pwd; cat /shared/file; touch /shared/no 2>&1; touch /no 2>&1; echo err >&2; exit 6";
  const flags = ["--rm", "--read-only", "--env", "A=b", "--cwd", "/tmp", ...mount];
  const program = containerd.run("run", flags, ["sh", "-c", script], { stdin: "pipe" });
  if (!isHusk) await program.stdout?.until("ready\n"); // with runc, an end before the start is lost
  program.stdin.end("through\n");
  expect(await program.ended()).toEqual({
    status: 6,
    stdout: "ready\nthrough\nb\n/tmp\nfrom the host\ntouch: /shared/no: Read-only file system\ntouch: /no: Read-only file system\n",
    stderr: "err\n",
  });
});

test.runIf(isHusk && availableParallelism() > 1)(
  "a shim has all processors where containerd is bound to some",
  async ({ containerd, engines }) => {
    const daemon = listProcesses().find(({ name, command }) => name === "containerd" && command.includes(engines.folder));
    if (daemon === undefined) throw new Error("there is no containerd");
    const allowed = (pid: number | undefined): string =>
      /^Cpus_allowed_list:\t(.*)$/m.exec(readFileSync(`/proc/${pid}/status`, "utf8"))?.[1] ?? "";
    const all = allowed(daemon.pid);
    const bind = (list: string): unknown => execFileSync("taskset", ["--all-tasks", "--cpu-list", "--pid", list, String(daemon.pid)]);
    bind("0");
    try {
      await containerd.detached("unbound", [], ["sleep", "1000"], async () => {
        expect([allowed(daemon.pid), allowed(containerd.shimProcess("unbound")?.pid)]).toEqual(["0", all]);
      });
    } finally {
      bind(all);
    }
  },
);

test("the options that ctr asks of a runtime, and a user namespace", ({ containerd }) => expectRuncOptions(containerd));

test("what cannot run is refused by name", async ({ containerd, engines }) => {
  const missing = await containerd.ran("missing", [], "nosuch");
  expect(missing).toMatchObject({
    status: 1,
    stderr: expect.stringMatching(/exec: "nosuch": executable file not found in \$PATH|exec "nosuch": exec/),
  });
  if (!isHusk) return;
  expect(await containerd.ran("net", ["--net-host"], "true")).toMatchObject({
    status: 1,
    stderr: expect.stringMatching(/linux\.namespaces: a VM cannot share the host's network/),
  });
  const device = join(engines.folder, "device");
  await engines.inside("mknod", device, "b", "7", "0");
  expect(await containerd.ran("device", ["--device", device], "true")).toMatchObject({
    status: 1,
    stderr: expect.stringMatching(/linux\.devices\[0\]: \S+device \(b 7:0\) is a device of the host/),
  });
});

test("a terminal: its size, its keys, its program's end", async ({ containerd }) => {
  const command = containerd.ctr.words("run", "--rm", "--tty", "--runtime", containerd.runtime, containerd.image, "terminal", "sh");
  const terminal = Terminal.around({ start: (...words) => new Program(...words) }, command);
  // ctr leaves the outer terminal's own line ends on.
  terminal.type("tty\n");
  await terminal.screen.until("\n/dev/pts/0\r\r\n");
  terminal.resize(33, 111);
  terminal.type("until [ \"$(stty size)\" = '33 111' ]; do :; done; stty size\n");
  await terminal.screen.until("\n33 111\r\r\n");
  terminal.type("exit 5\n");
  expect((await terminal.process.ended()).status).toBe(5);
});

test("exec: its status, streams, terminal, errors, and its end by a signal", async ({ containerd }) => {
  const { ctr } = containerd;
  await containerd.detached("box", [], ["sleep", "1000"], async () => {
    expect(await ctr.run("task", "exec", "--exec-id", "e1", "box", "sh", "-c", "echo out; echo err >&2; exit 4")).toEqual({
      status: 4,
      stdout: "out\n",
      stderr: "err\n",
    });
    const cat = ctr.start(["task", "exec", "--exec-id", "e1", "box", "cat"], { stdin: "pipe" });
    cat.stdin.end("through\n");
    expect((await cat.ended()).stdout).toBe("through\n");
    for (const [program, words] of [
      ["nosuch", /"nosuch": executable file not found in \$PATH/],
      ["/etc/passwd", /permission denied/],
    ] as const) {
      expect(await ctr.run("task", "exec", "--exec-id", "bad", "box", program)).toMatchObject({
        status: 1,
        stderr: expect.stringMatching(words),
      });
    }
    const sleep = ctr.start(["task", "exec", "--exec-id", "e2", "box", "sh", "-c", "echo ready; exec sleep 1000"]);
    await sleep.stdout?.until("ready\n");
    expect(await ctr.ok("task", "ps", "box")).toMatch(/^PID +INFO\n\d+ +-\n\d+ +&ProcessDetails\{ExecID:e2,.*\n$/);
    await ctr.ok("task", "kill", "--exec-id", "e2", "--signal", "SIGKILL", "box");
    expect((await sleep.ended()).status).toBe(137);
    const words = ctr.words("task", "exec", "--tty", "--exec-id", "e3", "box", "sh");
    const terminal = Terminal.around({ start: (...args) => new Program(...args) }, words);
    terminal.type("tty\n");
    await terminal.screen.until(/\n\/dev\/pts\/\d\r\r\n/);
    terminal.type("exit 7\n");
    expect((await terminal.process.ended()).status).toBe(7);
  });
});

test("pause, resume, update, metrics, kill, and a name that is taken", async ({ containerd }) => {
  const { ctr } = containerd;
  await containerd.detached("box", ["--memory-limit", "67108864"], ["sleep", "1000"], async () => {
    expect(await ctr.run("run", "--rm", "--runtime", containerd.runtime, containerd.image, "box", "true")).toMatchObject({ status: 1 });
    await ctr.ok("task", "pause", "box");
    expect(await containerd.status("box")).toBe("PAUSED");
    const exec = await ctr.run("task", "exec", "--exec-id", "e1", "box", "true");
    expect(exec).toMatchObject({ status: 1, stderr: expect.stringMatching(/cannot exec in a paused (container: box|state)(?! \()/) });
    await ctr.ok("task", "resume", "box");
    expect(await containerd.status("box")).toBe("RUNNING");
    const metrics = await ctr.ok("task", "metrics", "box");
    if (isHusk) {
      expect(metrics).toMatch(/^pids\.current +1 *$/m);
      expect(metrics).toMatch(/^memory\.usage_limit +67108864 *$/m);
      const resources = {
        typeUrl: "types.containerd.io/opencontainers/runtime-spec/1/LinuxResources",
        value: '{"memory":{"limit":50331648}}',
      };
      await containerd.shim("box", (call) =>
        call("update", { id: "box", resources: { ...resources, value: Buffer.from(resources.value) } }),
      );
      expect(await ctr.ok("task", "metrics", "box")).toMatch(/^memory\.usage_limit +50331648 *$/m);
    }
    await ctr.ok("task", "kill", "--signal", "SIGKILL", "box");
    await expect.poll(() => containerd.status("box"), { timeout: 10_000 }).toBe("STOPPED");
    expect((await ctr.run("task", "kill", "box")).stderr).toMatch(/process already finished: not found/);
    expect((await ctr.run("task", "rm", "box")).stderr).toMatch(/task box exit with non-zero exit code 137/);
  });
});

test("what cannot be done is said in the classes that containerd knows", async ({ containerd }) => {
  const id = "box";
  await containerd.detached(id, [], ["sleep", "1000"], () =>
    containerd.shim(id, async (call) => {
      const code = async (answer: Promise<unknown>): Promise<number> =>
        answer.then(
          () => GrpcCode.ok,
          (error: unknown) => (error as { grpcCode: number }).grpcCode,
        );
      const bundle = "/nowhere";
      expect(await code(call("create", { id, bundle }))).toBe(either({ husk: GrpcCode.alreadyExists, runc: GrpcCode.notFound }));
      expect(await code(call("state", { id: "other" }))).toBe(GrpcCode.notFound);
      expect(await code(call("state", { id, execId: "none" }))).toBe(GrpcCode.notFound);
      expect(await code(call("start", { id }))).not.toBe(GrpcCode.ok);
      expect(await code(call("delete", { id }))).not.toBe(GrpcCode.ok);
      await call("exec", { id, execId: "e", spec: process("true") });
      expect(await code(call("exec", { id, execId: "e", spec: process("true") }))).toBe(GrpcCode.alreadyExists);
      expect(await code(call("kill", { id, execId: "e", signal: 15 }))).toBe(GrpcCode.failedPrecondition);
      await call("delete", { id, execId: "e" });
      expect(await code(call("start", { id, execId: "e" }))).toBe(GrpcCode.notFound);
      await call("exec", { id, execId: "e", spec: process("true") });
      const { pid } = await call("start", { id, execId: "e" });
      expect(pid).toBeGreaterThan(1);
      expect(await call("wait", { id, execId: "e" })).toMatchObject({ exitStatus: 0 });
      expect(await code(call("kill", { id, execId: "e", signal: 15 }))).toBe(GrpcCode.notFound);
      expect(await call("delete", { id, execId: "e" })).toMatchObject({ pid, exitStatus: 0 });
      await call("resizePty", { id, width: 80, height: 24 }); // it has no terminal: there is nothing to do
      // Not "unimplemented": containerd 2 would try again with the API's older version.
      if (isHusk) expect(await code(call("checkpoint", { id, path: "" }))).toBe(GrpcCode.invalidArgument);
      await call("shutdown", { id }); // it has a task: it stays
      expect(await call("connect", { id })).toMatchObject({ shimPid: expect.any(Number), taskPid: expect.any(Number) });
    }),
  );
});

test.runIf(isHusk).for(["an image", "a folder"])(
  "a checkpoint of a task whose root is %s, from which it goes on",
  async (kind, { containerd, engines }) => {
    const id = `box-${kind.slice(-5).trim()}`;
    const [root, image, log, folder] = ["root", "image", "log", "checkpoint"].map((name) => join(engines.folder, `${id}-${name}`));
    makeRootfs(String(root));
    if (kind === "an image")
      execFileSync("sh", ["-c", `truncate -s 32M ${image} && mkfs.ext4 -q -F -d ${root} ${image}`], { stdio: "pipe" });
    const numbers = (): number[] => readFileSync(String(log), "utf8").trim().split("\n").map(Number);
    const flags = ["--detach", "--rootfs", "--log-uri", `file://${log}`, "--runtime", containerd.runtime];
    const script = "i=0; while :; do i=$((i+1)); echo $i; /bin/sleep 0.1; done";
    await containerd.ctr.ok("run", ...flags, String(kind === "an image" ? image : root), id, "/bin/sh", "-c", script);
    try {
      await expect.poll(() => existsSync(String(log)) && numbers().length, { timeout: 60_000 }).toBeGreaterThan(3);
      await containerd.shim(id, async (call) => {
        const exit = { typeUrl: "containerd.runc.v1.CheckpointOptions", value: Buffer.of(8, 1) };
        await call("checkpoint", { id, path: folder, options: exit });
        expect(await call("wait", { id })).toMatchObject({ exitStatus: 137 });
        const counted = numbers().length;
        await call("delete", { id });
        const bundle = `/run/containerd-test/io.containerd.runtime.v2.task/default/${id}`;
        await call("create", { id, bundle, checkpoint: folder, stdout: `file://${log}` });
        expect(await call("state", { id })).toMatchObject({ status: Status.CREATED });
        await call("start", { id });
        expect(await call("state", { id })).toMatchObject({ status: Status.RUNNING });
        await expect.poll(() => numbers().length, { timeout: 60_000 }).toBeGreaterThan(counted);
      });
    } finally {
      await containerd.remove(id);
    }
    // Without a gap, and without a repetition.
    expect(numbers()).toEqual(numbers().map((_, index) => index + 1));
  },
);

test("events come in their order, with one exit for each process", async ({ containerd }) => {
  const { ctr } = containerd;
  const events = await containerd.events("/tasks/delete", async () => {
    await containerd.detached("box", [], ["sleep", "1000"], async () => {
      await ctr.run("task", "exec", "--exec-id", "e", "box", "sh", "-c", "exit 3");
      await ctr.ok("task", "pause", "box");
      await ctr.ok("task", "resume", "box");
    });
  });
  const shown = events.map(({ topic, body }) => [topic, body["id"] ?? body["exec_id"] ?? "", body["exit_status"] ?? 0]);
  expect(shown).toEqual([
    ["/tasks/create", "", 0],
    ["/tasks/start", "", 0],
    ["/tasks/exec-added", "e", 0],
    ["/tasks/exec-started", "e", 0],
    ["/tasks/exit", "e", 3],
    ["/tasks/paused", "", 0],
    ["/tasks/resumed", "", 0],
    ["/tasks/exit", "box", 137],
    ["/tasks/delete", "", 137],
  ]);
});

test("a kill for want of memory is told before the end", async ({ containerd }) => {
  const events = await containerd.events("/tasks/delete", async () => {
    expect((await containerd.ran("box", ["--memory-limit", "50331648"], "tail", "/dev/zero")).status).toBe(137);
  });
  if (isHusk) expect(events.map(({ topic }) => topic).slice(-3)).toEqual(["/tasks/oom", "/tasks/exit", "/tasks/delete"]);
});

test("outputs into a file, and into a log driver that outlives nothing", async ({ containerd, engines }) => {
  const file = join(engines.folder, "logs/new/file");
  expect((await containerd.ran("file", ["--log-uri", `file://${file}`], "sh", "-c", "echo out; echo err >&2")).status).toBe(0);
  expect(readFileSync(file, "utf8").split("\n").toSorted()).toEqual(["", "err", "out"]);
  const [driver, log] = [join(engines.folder, "driver"), join(engines.folder, "driven")];
  const script = `#!/bin/sh\necho "$CONTAINER_ID $CONTAINER_NAMESPACE $*" >${log}\nexec 5>&-\ncat <&3 >>${log}\ncat <&4 >>${log}\necho end >>${log}\n`;
  writeFileSync(driver, script, { mode: 0o755 });
  const program = await containerd.ran("driver", ["--log-uri", `binary://${driver}?key=value`], "sh", "-c", "echo out; echo err >&2");
  expect(program.status).toBe(0);
  // runc's shim ends a driver at once.
  if (isHusk) await expect.poll(() => existsSync(log) && readFileSync(log, "utf8")).toBe("driver default key value\nout\nerr\nend\n");
});

test("a task outlives containerd, with all it says and its end", async ({ containerd, engines }) => {
  const script = "while [ ! -e /begin ]; do :; done; echo first; while [ ! -e /go ]; do :; done; seq 100000; exit 9";
  await containerd.detached("box", [], ["sh", "-c", script], async () => {
    const { stdout } = await containerd.shim("box", (call) => call("state", { id: "box" }));
    const reader = engines.start(["cat", stdout]);
    // Not before ctr is gone, which would read it as well.
    await containerd.ctr.ok("task", "exec", "--exec-id", "begin", "box", "touch", "/begin");
    await reader.stdout?.until("first\n");
    await engines.restartContainerd(async () => {});
    expect(await containerd.status("box")).toBe("RUNNING");
    const events = await containerd.events('/tasks/exit .*"id":"box"', async () => {
      await containerd.ctr.ok("task", "exec", "--exec-id", "go", "box", "touch", "/go");
      await reader.stdout?.until("\n100000\n");
    });
    const ends = events.filter(({ topic, body }) => topic === "/tasks/exit" && body["id"] === "box");
    expect(ends).toMatchObject([{ body: { exit_status: 9 } }]);
    expect((await containerd.ctr.run("task", "rm", "box")).stderr).toMatch(/exit code 9/);
    expect(await reader.ended()).toMatchObject({ status: 0 });
  });
});

test("what happens while containerd is away is told when it is back", async ({ containerd, engines }) => {
  await containerd.detached("box", [], ["sleep", "1000"], async () => {
    await containerd.shim("box", async (call) => {
      await engines.restartContainerd(async () => {
        await call("kill", { id: "box", signal: 9 });
        expect(await call("wait", { id: "box" })).toMatchObject({ exitStatus: 137 });
      });
    });
    expect(await containerd.status("box")).toBe("STOPPED");
    expect((await containerd.ctr.run("task", "rm", "box")).stderr).toMatch(/exit code 137/);
  });
});

test("output that nobody reads does not hold up the end", async ({ containerd }) => {
  await containerd.detached("box", [], ["sh", "-c", "seq 20000; exit 3"], async () => {
    await expect.poll(() => containerd.status("box"), { timeout: 30_000 }).toBe("STOPPED");
    expect((await containerd.ctr.run("task", "rm", "box")).stderr).toMatch(/exit code 3/);
  });
});

test("many, four at a time, leave nothing in containerd either", async ({ containerd, engines }) => {
  const run = async (worker: number, count: number): Promise<void> => {
    for (let n = 0; n < count; n++)
      expect(await containerd.ran(`many-${worker}-${n}`, [], "true")).toMatchObject({ status: 0, stderr: "" });
  };
  const four = (count: number) => Promise.all([0, 1, 2, 3].map((worker) => run(worker, count)));
  await four(1);
  const before = engines.containerdDescriptors();
  await four(4);
  await expect.poll(() => engines.containerdDescriptors()).toBeLessThanOrEqual(before);
});

test("a container that joins another's network namespace is in its VM", async ({ containerd }) => {
  const { ctr } = containerd;
  await containerd.detached("server", [], ["nc", "-ll", "-p", "80", "-e", "echo", "hi"], async () => {
    const [, pid] = /^server +(\d+) /m.exec(await ctr.ok("task", "ls")) ?? [];
    const join = ["--rm", "--with-ns", `network:/proc/${pid}/ns/net`];
    const client = await containerd.ran("client", join, "sh", "-c", "until nc 127.0.0.1 80 2>/dev/null; do :; done");
    expect(client).toEqual({ status: 0, stdout: "hi\n", stderr: "" });
  });
});
