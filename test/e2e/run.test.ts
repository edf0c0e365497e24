/** `run`: what a container's program is given, and what comes back of it. */
import { execFileSync } from "node:child_process";
import { readFileSync } from "node:fs";
import { availableParallelism } from "node:os";
import { expect } from "vitest";
import { makeBundle, writeProgram } from "../harness/bundle.ts";
import { test } from "../harness/host.ts";
import { globalFlags, isHusk, program } from "../harness/runtime.ts";
import { findPart } from "../harness/sandbox-processes.ts";

test.for([0, 42, 255])("ends with the program's exit code: %i", async (code, { host }) => {
  expect(await host.run(host.script(`echo out; echo err >&2; exit ${code}`))).toEqual({ status: code, stdout: "out\n", stderr: "err\n" });
});

test("ends with 128 and the signal where the program is killed", async ({ host }) => {
  const { id, foreground } = await host.running(host.script("echo ready; exec sleep 1000"));
  await host.ok("kill", id, "KILL");
  expect(await foreground.ended()).toEqual({ status: 137, stdout: "ready\n", stderr: "" });
});

test("--debug says what is being done, on standard error or in the log", async ({ host }) => {
  const bundle = host.script("echo out");
  const words = ["run", "--bundle", bundle.path];
  const spoken = await host.start(program, [...globalFlags, "--debug", "--root", host.root, ...words, host.name()]).ended();
  expect(spoken).toMatchObject({ status: 0, stdout: "out\n" });
  const log = host.path("log");
  const logged = await host.start(program, [...globalFlags, "--debug", "--log", log, "--root", host.root, ...words, host.name()]).ended();
  expect(logged).toEqual({ status: 0, stdout: "out\n", stderr: "" });
  if (isHusk) expect(spoken.stderr).toMatch(/^(husk: (debug|info): .*\n)+$/);
  if (isHusk) expect(spoken.stderr).toMatch(/^husk: debug: after \d+ ms: program runs$/m);
  expect(readFileSync(log, "utf8")).toContain("level=debug");
});

test.runIf(isHusk)("says in the log that a service manager's sockets do not reach the container", async ({ host }) => {
  const words = [...globalFlags, "--log", host.path("log"), "--root", host.root, "run", "--bundle", host.script("env").path, host.name()];
  const env = { NOTIFY_SOCKET: "/run/systemd/notify", LISTEN_FDS: "1" };
  const { status, stdout } = await host.start(program, words, { env }).ended();
  expect({ status, stdout }).toEqual({ status: 0, stdout: expect.not.stringMatching(/NOTIFY|LISTEN/) });
  expect(readFileSync(host.path("log"), "utf8")).toMatch(/level=info msg="NOTIFY_SOCKET: .*\n.*level=info msg="LISTEN_FDS: /);
});

// runc does so since 1.2.
test.runIf(isHusk && availableParallelism() > 1)(
  "gives the container all processors, and not those alone that the caller is bound to",
  async ({ host }) => {
    const spec = { linux: { resources: { cpu: { period: 100_000, quota: 200_000 } } } };
    const bundle = host.script("grep Cpus_allowed_list /proc/self/status; echo ready; read line", spec);
    const id = host.name();
    const words = ["-c", "0", program, ...globalFlags, "--root", host.root, "run", "--bundle", bundle.path, id];
    const bound = host.start("taskset", words, { stdin: "pipe" });
    await bound.stdout?.until("ready\n");
    expect(bound.stdout?.text()).toBe("Cpus_allowed_list:\t0-1\nready\n");
    const allowed = (pid: number | undefined): string =>
      /^Cpus_allowed_list:.*$/m.exec(readFileSync(`/proc/${pid}/status`, "utf8"))?.[0] ?? "";
    expect(allowed(findPart(host, id, "qemu")?.pid)).toBe(allowed(process.pid));
    bound.stdin?.end("\n");
    expect((await bound.ended()).status).toBe(0);
  },
);

test("delivers signals sent to the foreground", async ({ host }) => {
  const { foreground } = await host.running(
    host.script("trap 'echo got TERM; exit 3' TERM; trap 'echo got HUP' HUP; echo ready; while :; do sleep 1000 & wait; done"),
  );
  foreground.signal("SIGHUP");
  await foreground.stdout?.until("got HUP\n");
  foreground.signal("SIGTERM");
  await foreground.stdout?.until("got TERM\n");
  expect((await foreground.ended()).status).toBe(3);
});

test("runs a shell script as args[0], and a static binary", async ({ host }) => {
  const bundle = host.bundle({ process: { args: ["/usr/greet", "a b", "c"] } });
  execFileSync("mkdir", ["-p", `${bundle.rootfs}/usr`]);
  writeProgram(bundle, "usr/greet", '#!/bin/sh\necho "$0: $# arguments, the first is $1"\nexec /bin/busybox uname -s\n');
  expect(await host.run(bundle)).toEqual({ status: 0, stdout: "/usr/greet: 2 arguments, the first is a b\nLinux\n", stderr: "" });
});

test("finds args[0] by the container's PATH", async ({ host }) => {
  const bundle = host.bundle({ process: { args: ["tool"], env: ["PATH=/opt:/bin"] } });
  execFileSync("mkdir", ["-p", `${bundle.rootfs}/opt`]);
  writeProgram(bundle, "opt/tool", "#!/bin/sh\necho from /opt; echo PATH=$PATH\n");
  expect(await host.run(bundle)).toEqual({ status: 0, stdout: "from /opt\nPATH=/opt:/bin\n", stderr: "" });
});

test("takes the bundle from the working folder, and a path that is relative", async ({ host }) => {
  const bundle = host.script("echo here");
  expect((await host.launch(["run", "x"], { cwd: bundle.path }).ended()).stdout).toBe("here\n");
  const parent = host.folder;
  expect((await host.launch(["run", "-b", bundle.path.slice(parent.length + 1), "x"], { cwd: parent }).ended()).stdout).toBe("here\n");
});

test.for([".hidden", "a".repeat(200)])("takes the id %s, as runc does", async (id, { host }) => {
  const { stdout, stderr } = await host.runtime("run", "--bundle", host.script("echo ran").path, id);
  expect({ stdout, stderr }).toEqual({ stdout: "ran\n", stderr: "" });
});

test("shows what a container wrote in its folder on the host, with its owner and mode", async ({ host }) => {
  const bundle = host.script(
    "mkdir -p /data/sub; echo written >/data/sub/file; chmod 640 /data/sub/file; ln -s file /data/sub/link; chown 1000:1000 /data/sub/file",
  );
  expect((await host.run(bundle)).status).toBe(0);
  expect(readFileSync(`${bundle.rootfs}/data/sub/link`, "utf8")).toBe("written\n");
  const shown = execFileSync("stat", ["-c", "%u:%g %a", `${bundle.rootfs}/data/sub/file`], { encoding: "utf8" });
  // QEMU's virtiofsd maps nothing: the container's users are the host's.
  expect(shown).toBe("1000:1000 640\n");
});

test("leaves a file that has the container's PID while it runs", async ({ host }) => {
  const pidFile = host.path("pid");
  const { id, foreground } = await host.running(host.script("echo ready; read line; exit 0"), { stdin: "pipe" });
  const { pid } = await host.state(id);
  foreground.stdin.end("\n");
  expect((await foreground.ended()).status).toBe(0);
  expect(pid).toBeGreaterThan(1);

  const again = host.script("exit 0");
  expect((await host.runtime("run", "--bundle", again.path, "--pid-file", pidFile, "y")).status).toBe(0);
  expect(readFileSync(pidFile, "utf8")).toMatch(/^\d+$/);
});

test("-d answers when the container runs, and leaves its streams to it", async ({ host }) => {
  const bundle = host.script("echo started; read line; echo got $line; exit 9");
  const feed = host.feed();
  const program = host.launch(["run", "-d", "--pid-file", host.path("pid"), "--bundle", bundle.path, "d"], { stdin: feed.reader });
  expect(await program.exited()).toBe(0);
  await program.stdout?.until("started\n");
  const state = await host.state("d");
  expect(state).toMatchObject({ id: "d", status: "running", bundle: bundle.path });
  expect(readFileSync(host.path("pid"), "utf8")).toBe(String(state.pid));
  feed.write("word\n");
  expect((await program.ended()).stdout).toBe("started\ngot word\n");
  await host.until(async () => (await host.state("d")).status === "stopped");
  expect(await host.ok("delete", "d")).toBe("");
});

test("--keep keeps the ended container", async ({ host }) => {
  const bundle = host.script("exit 4");
  expect((await host.runtime("run", "--keep", "--bundle", bundle.path, "k")).status).toBe(4);
  expect(await host.state("k")).toMatchObject({ status: "stopped", pid: 0 });
  await host.ok("delete", "k");
});

test.runIf(isHusk)("runs in a kernel of its own", async ({ host }) => {
  const { stdout } = await host.run(host.script("cat /proc/sys/kernel/random/boot_id; grep -c . /proc/cpuinfo"));
  expect(stdout.split("\n")[0]).not.toBe(readFileSync("/proc/sys/kernel/random/boot_id", "utf8").trim());
});

test("two bundles may share one root file system", async ({ host }) => {
  const first = host.script("echo ready; read line; cat /shared", {});
  const second = makeBundle(host.path("second"), { process: { args: ["sh", "-c", "echo seen >/shared"] }, root: { path: first.rootfs } });
  const { foreground } = await host.running(first, { stdin: "pipe" });
  expect((await host.run(second)).status).toBe(0);
  foreground.stdin.end("\n");
  expect(await foreground.ended()).toEqual({ status: 0, stdout: "ready\nseen\n", stderr: "" });
});
