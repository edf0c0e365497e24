/** `exec`: further processes in a container that runs. */
import { execFile } from "node:child_process";
import { readFileSync, readlinkSync, writeFileSync } from "node:fs";
import { connect } from "node:net";
import { text } from "node:stream/consumers";
import { promisify } from "node:util";
import { expect } from "vitest";
import { ControlClient } from "../../src/sandbox/control-client.ts";
import { writeProgram } from "../harness/bundle.ts";
import { type Host, test } from "../harness/host.ts";
import type { Program, Result } from "../harness/program.ts";
import { either, isHusk, program } from "../harness/runtime.ts";
import { defaultMounts } from "../harness/spec.ts";

/** A container that waits for a line, and its end. */
async function waiting(
  host: Host,
  prepare: (rootfs: string) => void = () => {},
): Promise<{ readonly id: string; readonly foreground: Program; end(): Promise<Result> }> {
  const bundle = host.script("echo ready; read line", {
    process: { user: { uid: 0, gid: 0 }, env: ["PATH=/bin", "FROM=config"], cwd: "/home" },
  });
  prepare(bundle.rootfs);
  const { id, foreground } = await host.running(bundle, { stdin: "pipe" });
  return {
    id,
    foreground,
    end: () => {
      foreground.stdin.end("\n");
      return foreground.ended();
    },
  };
}

test("exit codes, streams, and the container's environment with changes", async ({ host }) => {
  const { id, end } = await waiting(host);
  expect(await host.runtime("exec", id, "sh", "-c", "echo out; echo err >&2; exit 42")).toEqual({
    status: 42,
    stdout: "out\n",
    stderr: "err\n",
  });
  expect((await host.runtime("exec", id, "sh", "-c", "kill -TERM $$")).status).toBe(143);
  expect((await host.runtime("exec", id, "sh", "-c", "kill -9 $$")).status).toBe(137);
  expect(await host.ok("exec", id, "sh", "-c", 'echo "$FROM $PWD $(id -u)"')).toBe("config /home 0\n");
  const changed = ["-e", "FROM=flag", "-e", "MORE=x=y", "--cwd", "/tmp", "-u", "1000:1000"];
  expect(await host.ok("exec", ...changed, id, "sh", "-c", 'echo "$FROM $MORE $PWD $(id -u):$(id -g)"')).toBe("flag x=y /tmp 1000:1000\n");
  const nowhere = await host.runtime("exec", "--cwd", "/not/there", id, "true");
  expect(nowhere.status).not.toBe(0);
  expect(nowhere.stderr).toMatch(/\/not\/there.*no such file or directory\n$/i);
  expect(await host.ok("exec", id, "sh", "-c", "ls -d /not || echo not made")).toBe("not made\n");
  expect((await end()).status).toBe(0);
});

test("stdin to its end, and arguments as they are", async ({ host }) => {
  const { id, end } = await waiting(host);
  const cat = host.launch(["exec", id, "wc", "-c"], { stdin: "pipe" });
  cat.stdin.end(Buffer.alloc(3_000_000));
  expect((await cat.ended()).stdout).toBe("3000000\n");
  expect(await host.ok("exec", id, "printf", "[%s]", "a b", "", "--flag", "*", "ü")).toBe("[a b][][--flag][*][ü]");
  expect((await end()).status).toBe(0);
});

test("a program that is missing, or cannot be executed, is named", async ({ host }) => {
  const { id, end } = await waiting(host, (rootfs) => {
    writeFileSync(`${rootfs}/bin/data`, "text\n");
    writeProgram({ path: "", rootfs }, "bin/orphan", "#!/no/such/interpreter\n");
  });
  const cases = [
    ["nope", 'exec "nope": executable file not found in $PATH'],
    ["/bin/nope", 'exec "/bin/nope": no such file or directory'],
    ["/bin/data", 'exec "/bin/data": permission denied'],
    ["orphan", 'exec "/bin/orphan": its interpreter "/no/such/interpreter" does not exist in the container'],
  ] as const;
  for (const [name, message] of cases) {
    const result = await host.runtime("exec", id, name);
    if (isHusk) expect(result).toEqual({ status: 255, stdout: "", stderr: `husk: ${message}\n` });
    else expect(result.status).toBeGreaterThan(0);
  }
  expect((await end()).status).toBe(0);
});

test.runIf(isHusk)("a stand-in that dials after the guest has refused the program is told why", async ({ host }) => {
  const { id, end } = await waiting(host);
  using client = await ControlClient.connect(host.root, id);
  const user = { uid: 0, gid: 0, username: "nobody-here" };
  const process = JSON.stringify({ terminal: false, user, args: ["true"], env: ["PATH=/bin"], cwd: "/" });
  const { token, execId } = await client.call("exec", { process, terminal: false });
  await host.ok("exec", id, "true"); // which the guest has refused the other one before
  const standIn = connect(`${host.root}/${id}/sock`);
  standIn.write(`${JSON.stringify({ attach: token, stream: "control", pid: 4711 })}\n`);
  const message = `user "nobody-here": no such user in the container's /etc/passwd`;
  const [last = ""] = (await text(standIn)).trimEnd().split("\n").slice(-1);
  expect(JSON.parse(last)).toEqual({ op: "fail", message, status: 255 });
  await expect(client.call("execStarted", { execId })).rejects.toThrow();
  expect((await end()).status).toBe(0);
});

test("-d goes on in the background, with its PID in a file", async ({ host }) => {
  const { id, end } = await waiting(host);
  const detached = host.launch(["exec", "-d", "--pid-file", host.path("pid"), id, "sh", "-c", "echo begun; exec sleep 7777"]);
  expect(await detached.exited()).toBe(0);
  await detached.stdout?.until("begun\n");
  const pid = Number(readFileSync(host.path("pid"), "utf8"));
  process.kill(pid, 0); // throws unless it lives
  expect(await host.ok("ps", id)).toContain("sleep 7777\n");
  process.kill(pid, "SIGKILL");
  await detached.ended();
  await host.until(async () => !(await host.ok("ps", id)).includes("sleep 7777"));
  expect((await end()).status).toBe(0);
});

test("--process takes the whole process from a file", async ({ host }) => {
  const { id, end } = await waiting(host);
  const process = {
    args: ["sh", "-c", "echo $A $PWD $(id -u) $(id -G); grep NoNewPrivs /proc/self/status; ulimit -Sf; ulimit -Hf; exit 3"],
    env: ["PATH=/bin", "A=file"],
    cwd: "/tmp",
    user: { uid: 1000, gid: 1000, additionalGids: [5] },
    noNewPrivileges: true,
    rlimits: [{ type: "RLIMIT_FSIZE", soft: 51_200, hard: 102_400 }],
  };
  writeFileSync(host.path("process.json"), JSON.stringify(process));
  const result = await host.runtime("exec", "--process", host.path("process.json"), id);
  expect(result).toEqual({ status: 3, stdout: "file /tmp 1000 1000 5\nNoNewPrivs:\t1\n100\n200\n", stderr: "" });
  expect((await end()).status).toBe(0);
});

test("--process takes a shell's <(...)", async ({ host }) => {
  const { id, end } = await waiting(host);
  const words = [program, "--root", host.root, "exec", "--process", `<(printf %s "$JSON")`, id].join(" ");
  const json = JSON.stringify({ args: ["echo", "from a pipe"], env: ["PATH=/bin"], cwd: "/", user: { uid: 0, gid: 0 } });
  const { stdout } = await promisify(execFile)("bash", ["-c", words], { env: { ...process.env, JSON: json } });
  expect(stdout).toBe("from a pipe\n");
  expect((await end()).status).toBe(0);
});

test.runIf(isHusk)("--cgroup joins a cgroup below the container's, and none outside", async ({ host }) => {
  const mounts = defaultMounts.map((mount) => (mount.destination === "/sys/fs/cgroup" ? { ...mount, options: ["rw"] } : mount));
  const cgroup = { destination: "/sys/fs/cgroup", type: "cgroup", source: "cgroup", options: ["rw"] };
  const all = mounts.some(({ destination }) => destination === cgroup.destination) ? mounts : [...mounts, cgroup];
  const { id, foreground } = await host.running(host.script("mkdir /sys/fs/cgroup/below; echo ready; read line", { mounts: all }), {
    stdin: "pipe",
  });
  const joined = (path: string): Promise<Result> => host.runtime("exec", "--cgroup", path, id, "cat", "/proc/self/cgroup");
  expect(await joined("below")).toEqual({ status: 0, stdout: "0::/below\n", stderr: "" });
  expect(await joined("/")).toEqual({ status: 0, stdout: "0::/\n", stderr: "" });
  expect(await joined("a/../..")).toMatchObject({ status: 255, stderr: "husk: --cgroup: a/../.. is not a sub cgroup path\n" });
  expect(await joined("missing")).toMatchObject({
    status: 255,
    stderr: expect.stringMatching(/^husk: .* adding pid \d+ to .*\/missing\/cgroup\.procs: no such file .*\n$/),
  });
  foreground.stdin.end("\n");
  expect((await foreground.ended()).status).toBe(0);
});

/** Listens at argv[1] for a pidfd, says what came with it, and at a line of input sends SIGTERM by it. */
const receiver = `import signal, socket, sys
listener = socket.socket(socket.AF_UNIX)
listener.bind(sys.argv[1])
listener.listen(1)
print("listening", flush=True)
what, descriptors, _, _ = socket.recv_fds(listener.accept()[0], 64, 1)
print(what.decode(), flush=True)
sys.stdin.readline()
signal.pidfd_send_signal(descriptors[0], signal.SIGTERM)`;

test.runIf(isHusk)("--pidfd-socket sends a pidfd, which reaches the container's process, or the exec's", async ({ host }) => {
  const received = async (name: string) => {
    const socket = host.path(name);
    const listener = host.start("/usr/bin/python3", ["-c", receiver, socket], { stdin: "pipe" });
    await listener.stdout?.until("listening\n");
    return { socket, listener };
  };
  const script = "trap 'kill $!; echo told; exit 3' TERM; echo ready; while :; do sleep 1000 & wait; done";
  const ofContainer = await received("of-container");
  const id = host.name();
  const foreground = host.launch(["run", "--pidfd-socket", ofContainer.socket, "--bundle", host.script(script).path, id]);
  await foreground.stdout?.until("ready\n");
  const ofExec = await received("of-exec");
  const exec = host.launch(["exec", "--pidfd-socket", ofExec.socket, id, "sh", "-c", script]);
  await exec.stdout?.until("ready\n");
  for (const [{ listener }, process] of [[ofExec, exec] as const, [ofContainer, foreground] as const]) {
    await listener.stdout?.until("pidfd\n");
    listener.stdin.end("\n");
    expect(await process.ended()).toMatchObject({ status: 3, stdout: "ready\ntold\n" });
  }
  const nobody = ["run", "--pidfd-socket", host.path("nobody"), "--bundle", host.script("echo never").path, host.name()];
  expect(await host.runtime(...nobody)).toEqual({
    status: 125,
    stdout: "",
    stderr: expect.stringMatching(/^husk: cannot send the pidfd of process \d+: .*cannot connect to the socket .*nobody: ENOENT.*\n$/),
  });
});

test.runIf(isHusk)("a stand-in has the container's namespaces on the host, and an exec's is beside it", async ({ host }) => {
  const { id, foreground } = await host.running(host.script("echo ready; read line", { hostname: "inside" }), { stdin: "pipe" });
  const { pid } = await host.state(id);
  const spaces = (of: number | "self") => ["uts", "ipc", "cgroup"].map((name) => readlinkSync(`/proc/${of}/ns/${name}`));
  expect(spaces(pid).filter((space) => spaces("self").includes(space))).toEqual([]);
  const { stdout } = await promisify(execFile)("nsenter", [`--uts=/proc/${pid}/ns/uts`, "uname", "-n"]);
  expect(stdout).toBe("inside\n");
  const exec = host.launch(["exec", "-d", "--pid-file", host.path("exec.pid"), id, "sleep", "1000"]);
  expect(await exec.exited()).toBe(0);
  expect(spaces(Number(readFileSync(host.path("exec.pid"), "utf8")))).toEqual(spaces(pid));
  foreground.stdin.end("\n");
  expect((await foreground.ended()).status).toBe(0);
  await exec.ended(); // it holds the output until its container is gone
});

test("many at once, each with its own streams", async ({ host }) => {
  const { id, end } = await waiting(host);
  const results = await Promise.all([1, 2, 3, 4, 5, 6].map((n) => host.runtime("exec", id, "sh", "-c", `echo ${n}; exit ${n}`)));
  expect(results).toEqual([1, 2, 3, 4, 5, 6].map((n) => ({ status: n, stdout: `${n}\n`, stderr: "" })));
  expect((await end()).status).toBe(0);
});

test("signals sent to the exec are its program's", async ({ host }) => {
  const { id, end } = await waiting(host);
  const exec = host.launch([
    "exec",
    id,
    "sh",
    "-c",
    "trap 'echo told; exit 5' TERM; echo waiting; while :; do sleep 1000 >/dev/null 2>&1 & wait; done",
  ]);
  await exec.stdout?.until("waiting\n");
  exec.signal("SIGTERM");
  expect(await exec.ended()).toMatchObject({ status: 5, stdout: "waiting\ntold\n" });
  expect((await end()).status).toBe(0);
});

test("an exec ends with its container", async ({ host }) => {
  const { id, end } = await waiting(host);
  const exec = host.launch(["exec", id, "sh", "-c", "echo waiting; exec sleep 1000"]);
  await exec.stdout?.until("waiting\n");
  expect((await end()).status).toBe(0);
  expect((await exec.ended()).status).toBe(137);
});

test("into a container that was created and not started, and never into one that has stopped", async ({ host }) => {
  const { id, program } = await host.create(host.script("true"));
  expect(await host.ok("exec", id, "echo", "early")).toBe("early\n");
  await host.ok("start", id);
  await program.ended();
  await host.until(async () => (await host.state(id)).status === "stopped");
  const late = await host.runtime("exec", id, "true");
  expect(late).toMatchObject(
    either({
      husk: { status: 255, stderr: `husk: cannot exec in a stopped container: ${id}\n` },
      runc: { status: 255, stderr: expect.stringContaining("cannot exec in a stopped container") },
    }),
  );
  await host.ok("delete", id);
});

test.runIf(isHusk)("a user of the container's /etc/passwd by name", async ({ host }) => {
  const { id, end } = await waiting(host);
  expect(await host.ok("exec", "-u", "user", id, "id", "-un")).toBe("user\n");
  const unknown = await host.runtime("exec", "-u", "nobody-here", id, "id");
  expect(unknown).toMatchObject({ status: 255, stdout: "", stderr: expect.stringMatching(/^husk: .*nobody-here.*\n$/) });
  expect((await end()).status).toBe(0);
});
