/** Podman 4.3 with husk as its OCI runtime: what its users do every day. */
import { mkdirSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { expect } from "vitest";
import { test } from "../harness/engines.ts";
import { pauseName } from "../harness/image.ts";
import { expectHogKilled } from "../harness/memory-hog.ts";
import { either, isHusk } from "../harness/runtime.ts";
import { countMachines } from "../harness/sandbox-processes.ts";

const quiet = ["--rm", "--network", "none"];

test("run: the status, the streams, and errors that say what is wrong", async ({ engines }) => {
  const podman = await engines.podman();
  expect(await podman.run("run", ...quiet, engines.image, "sh", "-c", "echo out; echo err >&2; exit 6")).toEqual({
    status: 6,
    stdout: "out\n",
    stderr: "err\n",
  });
  const cat = podman.start(["run", "--interactive", ...quiet, engines.image, "cat"], { stdin: "pipe" });
  cat.stdin.end("through\n");
  expect((await cat.ended()).stdout).toBe("through\n");
  const missing = await podman.run("run", ...quiet, engines.image, "nosuch");
  expect(missing.status).toBe(127);
  expect(missing.stderr).toMatch(/"nosuch": executable file not found in \$PATH/);
});

test("a container that takes more memory than it may pays for it alone, and with more of it lives", async ({ engines }) => {
  await expectHogKilled(await engines.podman(), ["--network", "none"], engines.image);
});

test("run: user, capabilities, limits, mounts, names", async ({ engines }) => {
  const podman = await engines.podman();
  const [shared, layered] = [join(engines.folder, "shared"), join(engines.folder, "layered")];
  for (const folder of [shared, layered]) {
    mkdirSync(folder, { recursive: true });
    writeFileSync(join(folder, "file"), "from the host\n");
  }
  const script = `id -u; id -g; touch /y 2>&1; df -k /x /dev/shm | sed "s/ .*//" ; ulimit -n; sed -n "s/^CapPrm:[[:space:]]*//p" /proc/self/status
    cat /proc/sys/net/ipv4/ip_forward; hostname; cat /shared/file; touch /shared/no 2>&1; cat /proc/self/oom_score_adj; cat /sys/fs/cgroup/pids.max 2>/dev/null`;
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
    ["--memory", "64m", "--pids-limit", "10", "--cpu-shares", "512", "--cpuset-cpus", "0"],
  );
  const { stdout } = await podman.run("run", ...quiet, ...flags, engines.image, "sh", "-c", script);
  expect(stdout.split("\n")).toEqual(
    [
      "1000",
      "1000",
      "touch: /y: Read-only file system",
      "Filesystem",
      "tmpfs",
      either({ husk: "tmpfs", runc: "shm" }), // the guest's own, which containers of its virtual machine can share
      "77",
      "0000000000002000",
      "1",
      "h1",
      "from the host",
    ].concat(["touch: /shared/no: Read-only file system", "500", ...(isHusk ? ["10"] : []), ""]),
  );
  expect(
    await podman.ok("run", ...quiet, "--uidmap", "0:100000:5000", engines.image, "sh", "-c", "cat /proc/self/uid_map | tr -s ' '; id -u"),
  ).toBe(" 0 100000 5000\n0\n");
  const over = await podman.ok(
    "run",
    ...quiet,
    "--volume",
    `${layered}:/over:O`,
    engines.image,
    "sh",
    "-c",
    "cat /over/file; echo x >/over/new; ls /over",
  );
  expect(over).toBe("from the host\nfile\nnew\n");
  await podman.ok("volume", "create", "v1");
  await podman.ok("run", ...quiet, "--volume", "v1:/data", engines.image, "sh", "-c", "echo kept >/data/f");
  expect(await podman.ok("run", ...quiet, "--volume", "v1:/data:ro", engines.image, "cat", "/data/f")).toBe("kept\n");
  await podman.ok("volume", "rm", "v1");
});

test("a service: ports, exec, logs, top, stats, cp, pause, stop, start, kill", async ({ engines }) => {
  const podman = await engines.podman();
  const script = `mkdir /www; echo page >/www/index.html; trap "exit 3" TERM; echo started; httpd -f -p 80 -h /www & wait`;
  await podman.ok("run", "--detach", "--name", "web", "--publish", "8080:80", "--memory", "128m", engines.image, "sh", "-c", script);
  try {
    const page = () => engines.inside("busybox", "wget", "-q", "-O", "-", "http://127.0.0.1:8080/");
    await podman.ok("exec", "web", "sh", "-c", "until wget -q -O /dev/null http://127.0.0.1/; do :; done");
    expect(await page()).toBe("page\n");
    expect((await podman.run("exec", "web", "sh", "-c", "exit 4")).status).toBe(4);
    expect(await podman.ok("exec", "-u", "1000", "-w", "/tmp", "-e", "A=b", "web", "sh", "-c", "id -u; pwd; echo $A")).toBe(
      "1000\n/tmp\nb\n",
    );
    expect(await podman.ok("exec", "--tty", "web", "tty")).toBe("/dev/pts/0\r\n");
    expect(await podman.ok("logs", "web")).toBe("started\n");
    expect(await podman.ok("top", "web", "-eo", "pid,args")).toMatch(/httpd -f -p 80/);
    // Of the mount namespace of its PID, which has nothing of the host's.
    const pid = (await podman.ok("inspect", "--format", "{{.State.Pid}}", "web")).trim();
    expect(await podman.ok("top", "web", "pid", "args")).toMatch(new RegExp(`^PID +COMMAND\\n${pid} +sh -c .*\\n$`));
    expect(await podman.ok("stats", "--no-stream", "--format", "{{.Name}} {{.PIDS}}", "web")).toMatch(/^web \d+\n$/);
    await podman.ok("cp", "web:/www/index.html", join(engines.folder, "copied"));
    expect(await engines.inside("cat", join(engines.folder, "copied"))).toBe("page\n");
    await podman.ok("pause", "web");
    expect(await podman.ok("inspect", "--format", "{{.State.Status}}", "web")).toBe("paused\n");
    await podman.ok("unpause", "web");
    await podman.ok("stop", "--time", "5", "web");
    expect(await podman.ok("inspect", "--format", "{{.State.Status}} {{.State.ExitCode}}", "web")).toBe("exited 3\n");
    await podman.ok("start", "web");
    await podman.ok("kill", "web");
    expect(await podman.ok("wait", "web")).toBe("137\n");
  } finally {
    await podman.run("rm", "--force", "--time", "0", "web");
  }
});

test("health checks, update, and a terminal", async ({ engines }) => {
  const podman = await engines.podman();
  const flags = ["--network", "none", "--memory", "128m", "--health-cmd", "test -e /tmp/ok", "--health-interval", "disable"];
  await podman.ok("run", "--detach", "--name", "box", ...flags, engines.image, "sh", "-c", "touch /tmp/ok; exec sleep 1000");
  try {
    await podman.ok("healthcheck", "run", "box");
    expect(await podman.ok("inspect", "--format", "{{.State.Health.Status}}", "box")).toBe("healthy\n");
    await podman.ok("update", "--memory", "64m", "box");
    if (isHusk) expect(await podman.ok("exec", "box", "cat", "/sys/fs/cgroup/memory.max")).toBe(`${64 * 1024 ** 2}\n`);
  } finally {
    await podman.run("rm", "--force", "--time", "0", "box");
  }
  expect(await podman.ok("run", "--tty", ...quiet, engines.image, "tty")).toBe("/dev/pts/0\r\n");
});

test.runIf(isHusk)("what a virtual machine cannot share is refused by name, and leaves nothing", async ({ engines }) => {
  const podman = await engines.podman();
  for (const [flags, words] of [
    [["--network", "host"], /linux\.namespaces: a VM cannot share the host's network/],
    [["--network", "none", "--pid", "host"], /linux\.namespaces: a VM cannot share the host's processes/],
  ] as const) {
    const { status, stderr } = await podman.run("run", "--rm", ...flags, engines.image, "true");
    expect({ status, stderr }).toEqual({ status: 126, stderr: expect.stringMatching(words) });
  }
});

test("a pod: localhost, the host name, shared memory, a published port; exec, logs, ps, stats, stop, start, rm", async ({ engines }) => {
  const podman = await engines.podman();
  const [, pause = ""] = engines.archives();
  await podman.ok("load", "--quiet", "--input", pause);
  const before = countMachines();
  const infra = ["--infra-image", pauseName, "--infra-command", "/bin/sleep 1000000"];
  await podman.ok("pod", "create", "--name", "shop", "--hostname", "shop", "--publish", "8081:80", ...infra);
  try {
    const serve = "mkdir /www; echo page >/www/index.html; echo kept >/dev/shm/note; echo serving; exec httpd -f -p 80 -h /www";
    await podman.ok("run", "--detach", "--pod", "shop", "--name", "web", engines.image, "sh", "-c", serve);
    await podman.ok("exec", "web", "sh", "-c", "until wget -q -O /dev/null http://127.0.0.1/; do :; done");
    const ask = "wget -q -O - http://localhost/; hostname; cat /dev/shm/note; ps -o comm | grep -c httpd";
    expect(await podman.run("run", "--rm", "--pod", "shop", engines.image, "sh", "-c", `${ask} || true`)).toEqual({
      status: 0,
      stdout: "page\nshop\nkept\n0\n",
      stderr: "",
    });
    expect(await engines.inside("busybox", "wget", "-q", "-O", "-", "http://127.0.0.1:8081/")).toBe("page\n");
    expect(await podman.ok("exec", "web", "hostname")).toBe("shop\n");
    expect(await podman.ok("logs", "web")).toBe("serving\n");
    expect(await podman.ok("ps", "--pod", "--format", "{{.Names}} {{.PodName}}", "--filter", "name=web")).toBe("web shop\n");
    expect(await podman.ok("pod", "inspect", "--format", "{{.State}} {{.NumContainers}}", "shop")).toBe("Running 2\n");
    expect(await podman.ok("pod", "stats", "--no-stream", "--format", "{{.Name}}", "shop")).toMatch(/web\n/);
    expect(countMachines()).toBe(before + (isHusk ? 1 : 0));

    await podman.ok("restart", "--time", "0", "web"); // its infra container goes on
    await podman.ok("exec", "web", "sh", "-c", "until wget -q -O /dev/null http://127.0.0.1/; do :; done");
    await podman.ok("pod", "stop", "--time", "0", "shop");
    expect(await podman.ok("pod", "inspect", "--format", "{{.State}}", "shop")).toBe("Exited\n");
    await podman.ok("pod", "start", "shop");
    await podman.ok("exec", "web", "sh", "-c", "until wget -q -O /dev/null http://127.0.0.1/; do :; done");
  } finally {
    await podman.run("pod", "rm", "--force", "--time", "0", "shop");
  }
  expect(await podman.ok("ps", "--all", "--quiet")).toBe("");
});

test("--network, --pid and --ipc container: the same virtual machine, which the second keeps where the first goes", async ({ engines }) => {
  const podman = await engines.podman();
  const serve = "echo page >/tmp/index.html; echo kept >/dev/shm/note; httpd -p 80 -h /tmp; exec sleep 1000";
  await podman.ok("run", "--detach", "--name", "first", "--ipc", "shareable", engines.image, "sh", "-c", serve);
  const joins = (...names: readonly string[]) => names.flatMap((name) => [`--${name}`, "container:first"]);
  try {
    await podman.ok("exec", "first", "sh", "-c", "until wget -q -O /dev/null http://127.0.0.1/; do :; done");
    const script = "wget -q -O - http://127.0.0.1/; cat /dev/shm/note; ps -o comm | grep -c httpd";
    const { stdout } = await podman.run("run", "--rm", ...joins("network", "ipc", "pid"), engines.image, "sh", "-c", script);
    expect(stdout).toBe("page\nkept\n1\n");
    if (isHusk) {
      const apart = await podman.run("run", "--rm", "--network", "none", ...joins("pid"), engines.image, "true");
      expect(apart.stderr).toMatch(
        /only containers of the same virtual machine can share it: name the network namespace of the one that has it as well/,
      );
    }
    await podman.ok("run", "--detach", "--name", "second", ...joins("network"), engines.image, "sleep", "1000");
    await podman.ok("kill", "first");
    await podman.ok("wait", "first");
    expect((await podman.run("exec", "second", "sh", "-c", "exit 6")).status).toBe(6);
  } finally {
    for (const name of ["second", "first"]) await podman.run("rm", "--force", "--time", "0", name);
  }
});
