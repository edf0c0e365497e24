/** Docker 20.10 with husk as its OCI runtime: what its users do every day. */
import { mkdirSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { expect } from "vitest";
import { test } from "../harness/engines.ts";
import { expectHogKilled } from "../harness/memory-hog.ts";
import { either, isHusk } from "../harness/runtime.ts";
import { countMachines } from "../harness/sandbox-processes.ts";

test("run: the status, the streams, and errors that say what is wrong", async ({ engines }) => {
  const docker = await engines.docker();
  expect(await docker.run("run", "--rm", engines.image, "sh", "-c", "echo out; echo err >&2; exit 6")).toEqual({
    status: 6,
    stdout: "out\n",
    stderr: "err\n",
  });
  const cat = docker.start(["run", "--interactive", "--rm", engines.image, "cat"], { stdin: "pipe" });
  cat.stdin.end("through\n");
  expect((await cat.ended()).stdout).toBe("through\n");
  const missing = await docker.run("run", "--rm", engines.image, "nosuch");
  expect(missing.status).toBe(127);
  expect(missing.stderr).toMatch(/"nosuch": executable file not found in \$PATH/);
  expect((await docker.run("run", "--rm", "--memory", "64m", engines.image, "tail", "/dev/zero")).status).toBe(137);
});

test("a container that takes more memory than it may pays for it alone, and with more of it lives", async ({ engines }) => {
  await expectHogKilled(await engines.docker(), [], engines.image);
});

test("run: user, capabilities, limits, mounts, names, seccomp, init", async ({ engines }) => {
  const docker = await engines.docker();
  const shared = join(engines.folder, "docker-shared");
  mkdirSync(shared);
  writeFileSync(join(shared, "file"), "from the host\n");
  const seccomp = join(engines.folder, "seccomp.json");
  writeFileSync(
    seccomp,
    JSON.stringify({ defaultAction: "SCMP_ACT_ALLOW", syscalls: [{ names: ["mkdir", "mkdirat"], action: "SCMP_ACT_ERRNO" }] }),
  );
  const script = `id -u; touch /y 2>&1; df -k /x /dev/shm | sed "s/ .*//"; ulimit -n; sed -n "s/^CapBnd:[[:space:]]*//p" /proc/self/status
    cat /proc/sys/net/ipv4/ip_forward; hostname; cat /shared/file; touch /shared/no 2>&1; cat /proc/self/oom_score_adj; mkdir /x/d 2>&1`;
  const flags = [
    "--user",
    "1000:1000",
    "--read-only",
    "--tmpfs",
    "/x:size=1m",
    "--shm-size",
    "1m",
    "--ulimit",
    "nofile=77:88",
    "--cap-drop",
    "all",
  ].concat(
    [
      "--cap-add",
      "net_raw",
      "--sysctl",
      "net.ipv4.ip_forward=1",
      "--hostname",
      "h1",
      "--volume",
      `${shared}:/shared:ro`,
      "--oom-score-adj",
      "500",
    ],
    [
      "--memory",
      "64m",
      "--cpus",
      "0.5",
      "--pids-limit",
      "10",
      "--cpu-shares",
      "512",
      "--cpuset-cpus",
      "0",
      "--security-opt",
      `seccomp=${seccomp}`,
    ],
  );
  const { stdout } = await docker.run("run", "--rm", ...flags, engines.image, "sh", "-c", script);
  expect(stdout.split("\n")).toEqual(
    ["1000", "touch: /y: Read-only file system", "Filesystem", "tmpfs", "shm", "77", "0000000000002000", "1", "h1", "from the host"].concat(
      ["touch: /shared/no: Read-only file system", "500", "mkdir: can't create directory '/x/d': Operation not permitted", ""],
    ),
  );
  expect(await docker.ok("run", "--rm", "--init", engines.image, "sh", "-c", "cat /proc/1/comm")).toBe("docker-init\n");
  // The machine itself need not have all capabilities; the guest has.
  if (isHusk)
    expect(await docker.ok("run", "--rm", "--privileged", engines.image, "sh", "-c", "mount -t tmpfs x /home && echo mounted")).toBe(
      "mounted\n",
    );
});

test("a service: ports, exec, logs, top, stats, cp, pause, update, restart, stop, kill", async ({ engines }) => {
  const docker = await engines.docker();
  const script = `mkdir -p /www; echo page >/www/index.html; trap "exit 3" TERM; echo started; httpd -f -p 80 -h /www & wait`;
  const health = ["--health-cmd", "test -e /www/index.html", "--health-interval", "1s"];
  const served = ["sh", "-c", "until wget -q -O /dev/null http://127.0.0.1/; do :; done"];
  await docker.ok(
    "run",
    "--detach",
    "--name",
    "web",
    "--publish",
    "8081:80",
    "--memory",
    "128m",
    ...health,
    engines.image,
    "sh",
    "-c",
    script,
  );
  try {
    await docker.ok("exec", "web", ...served);
    expect(await engines.inside("busybox", "wget", "-q", "-O", "-", "http://127.0.0.1:8081/")).toBe("page\n");
    expect((await docker.run("exec", "web", "sh", "-c", "exit 4")).status).toBe(4);
    expect(await docker.ok("exec", "-u", "1000", "-w", "/tmp", "-e", "A=b", "web", "sh", "-c", "id -u; pwd; echo $A")).toBe(
      "1000\n/tmp\nb\n",
    );
    expect(await docker.ok("logs", "web")).toBe("started\n");
    expect(await docker.ok("top", "web")).toMatch(/^UID .*\n\w+ +\d+/);
    expect(await docker.ok("stats", "--no-stream", "--format", "{{.Name}} {{.PIDs}}", "web")).toMatch(/^web \d+\n$/);
    const copied = join(engines.folder, "docker-copied");
    await docker.ok("cp", "web:/www/index.html", copied);
    await docker.ok("cp", copied, "web:/www/again");
    expect(await docker.ok("exec", "web", "cat", "/www/again")).toBe("page\n");
    await docker.ok("pause", "web");
    expect(await docker.ok("inspect", "--format", "{{.State.Status}}", "web")).toBe("paused\n");
    await docker.ok("unpause", "web");
    await docker.ok("update", "--memory", "64m", "--memory-swap", "64m", "--cpus", "0.5", "web");
    if (isHusk)
      expect(await docker.ok("exec", "web", "sh", "-c", "cd /sys/fs/cgroup; cat memory.max cpu.max")).toBe("67108864\n50000 100000\n");
    await docker.ok("restart", "--time", "5", "web");
    await docker.ok("exec", "web", ...served); // its trap is set by then: before, SIGTERM would not reach a first process
    await docker.ok("stop", "--time", "5", "web");
    expect(await docker.ok("inspect", "--format", "{{.State.Status}} {{.State.ExitCode}}", "web")).toBe("exited 3\n");
    await docker.ok("start", "web");
    await docker.ok("kill", "web");
    expect(await docker.ok("wait", "web")).toBe("137\n");
  } finally {
    await docker.run("rm", "--force", "web");
  }
});

test("health checks tell how it is", async ({ engines }) => {
  const docker = await engines.docker();
  await docker.ok(
    "run",
    "--detach",
    "--name",
    "box",
    "--health-cmd",
    "cat /proc/1/comm",
    "--health-interval",
    "1s",
    engines.image,
    "sleep",
    "1000",
  );
  try {
    const events = docker.start(["events", "--filter", "container=box", "--filter", "event=health_status", "--since", "0"]);
    await events.stdout?.until("health_status: healthy");
    events.signal("SIGKILL");
    await events.ended();
  } finally {
    await docker.run("rm", "--force", "box");
  }
});

test("what the host alone has is refused by name, and leaves nothing", async ({ engines }) => {
  const docker = await engines.docker();
  const words = { network: /the host's own network, which a VM cannot share/, pid: /a VM cannot share the host's processes/ };
  for (const kind of ["network", "pid"] as const) {
    const { status, stderr } = await docker.run("run", "--rm", `--${kind}`, "host", engines.image, "true");
    expect({ status, stderr }).toEqual(
      either({ husk: { status: 125, stderr: expect.stringMatching(words[kind]) }, runc: { status: 0, stderr: "" } }),
    );
  }
});

test("a user-defined network: containers meet by name, and links come and go", async ({ engines }) => {
  const docker = await engines.docker();
  await docker.ok("network", "create", "net1");
  await docker.ok("network", "create", "net2");
  await docker.ok("run", "--detach", "--name", "peer", "--network", "net1", engines.image, "nc", "-ll", "-p", "80", "-e", "echo", "hi");
  try {
    const script = "until nc peer 80; do :; done";
    expect((await docker.run("run", "--rm", "--network", "net1", engines.image, "sh", "-c", script)).stdout).toBe("hi\n");
    await docker.ok("network", "connect", "net2", "peer");
    await docker.ok("exec", "peer", "sh", "-c", "until ip -o -4 address show eth1 2>/dev/null | grep -q inet; do :; done");
    await docker.ok("network", "disconnect", "net2", "peer");
    await docker.ok("exec", "peer", "sh", "-c", "while ip link show eth1 >/dev/null 2>&1; do :; done");
  } finally {
    await docker.ok("rm", "--force", "peer");
    await docker.ok("network", "rm", "net1", "net2");
  }
});

test("--network, --pid and --ipc container: the same virtual machine, which the second keeps where the first goes", async ({ engines }) => {
  const docker = await engines.docker();
  const before = countMachines();
  const serve = "echo page >/tmp/index.html; echo kept >/dev/shm/note; httpd -p 80 -h /tmp; exec sleep 1000";
  await docker.ok("run", "--detach", "--name", "first", "--ipc", "shareable", engines.image, "sh", "-c", serve);
  const joins = (...names: readonly string[]) => names.flatMap((name) => [`--${name}`, "container:first"]);
  try {
    await docker.ok("exec", "first", "sh", "-c", "until wget -q -O /dev/null http://127.0.0.1/; do :; done");
    const script = "wget -q -O - http://127.0.0.1/; cat /dev/shm/note; ps -o comm | grep -c httpd; ip -o link | wc -l";
    expect(await docker.ok("run", "--rm", ...joins("network", "ipc", "pid"), engines.image, "sh", "-c", script)).toBe("page\nkept\n1\n2\n");
    if (isHusk) {
      const apart = await docker.run("run", "--rm", "--network", "none", ...joins("pid"), engines.image, "true");
      expect(apart).toMatchObject({
        status: 125,
        stderr: expect.stringMatching(
          /only containers of the same virtual machine can share it: name the network namespace of the one that has it as well/,
        ),
      });
    }
    await docker.ok("run", "--detach", "--name", "second", ...joins("network"), engines.image, "sleep", "1000");
    expect(countMachines()).toBe(before + (isHusk ? 1 : 0));
    await docker.ok("stop", "--time", "0", "first");
    await docker.ok("rm", "first");
    expect((await docker.run("exec", "second", "sh", "-c", "exit 6")).status).toBe(6);
  } finally {
    await docker.run("rm", "--force", "first", "second");
  }
});
