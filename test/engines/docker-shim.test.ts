/** Docker 20.10 through husk's shim. It takes no other shim than runc's, so husk's has that name here, in a folder that containerd finds first. */
import { execFileSync } from "node:child_process";
import { mkdirSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { expect } from "vitest";
import { shimFolder } from "../harness/containerd.ts";
import { test as base } from "../harness/engines.ts";
import { Program } from "../harness/program.ts";
import { isHusk } from "../harness/runtime.ts";
import { Terminal } from "../harness/terminal.ts";

const test = base.extend("docker", { scope: "file" }, async ({ engines }) => {
  await engines.containerd(shimFolder(engines, "containerd-shim-runc-v2"));
  return engines.docker(true);
});

test.runIf(isHusk)("run: the status, the streams, a terminal, errors with Docker's statuses", async ({ docker, engines }) => {
  expect(await docker.run("run", "--rm", engines.image, "sh", "-c", "uname -r; echo err >&2; exit 6")).toEqual({
    status: 6,
    stdout: expect.not.stringMatching(execFileSync("uname", ["-r"], { encoding: "utf8" })),
    stderr: "err\n",
  });
  const cat = docker.start(["run", "--interactive", "--rm", engines.image, "cat"], { stdin: "pipe" });
  cat.stdin.end("through\n");
  expect((await cat.ended()).stdout).toBe("through\n");
  for (const [program, status, words] of [
    ["nosuch", 127, /"nosuch": executable file not found in \$PATH/],
    ["/tmp", 126, /"\/tmp": is a directory: permission denied/],
  ] as const) {
    expect(await docker.run("run", "--rm", engines.image, program)).toMatchObject({ status, stderr: expect.stringMatching(words) });
  }
  const words = docker.words("run", "--interactive", "--tty", "--rm", engines.image, "sh");
  const terminal = Terminal.around({ start: (...args) => new Program(...args) }, words);
  terminal.type("tty; stty size\n");
  await terminal.screen.until(/\/dev\/pts\/0\r+\n24 80\r+\n/);
  terminal.type("exit 5\n");
  expect((await terminal.process.ended()).status).toBe(5);
});

test.runIf(isHusk)("run: user, limits, mounts, names, seccomp, init, memory", async ({ docker, engines }) => {
  const shared = join(engines.folder, "shim-shared");
  mkdirSync(shared);
  writeFileSync(join(shared, "file"), "from the host\n");
  const seccomp = join(engines.folder, "shim-seccomp.json");
  const rule = { names: ["mkdir", "mkdirat"], action: "SCMP_ACT_ERRNO" };
  writeFileSync(seccomp, JSON.stringify({ defaultAction: "SCMP_ACT_ALLOW", syscalls: [rule] }));
  const flags =
    `--user 1000:1000 --read-only --tmpfs /x:size=1m --shm-size 1m --ulimit nofile=77:88 --cap-drop all --cap-add net_raw --hostname h1 ` +
    `--sysctl net.ipv4.ip_forward=1 --volume ${shared}:/shared:ro --memory 64m --cpus 0.5 --security-opt seccomp=${seccomp}`;
  const script = `id -u; touch /y 2>&1; df -k /x /dev/shm | sed "s/ .*//"; ulimit -n; sed -n "s/^CapBnd:[[:space:]]*//p" /proc/self/status
    cat /proc/sys/net/ipv4/ip_forward; hostname; cat /shared/file; mkdir /x/d 2>&1; cat /sys/fs/cgroup/memory.max`;
  expect((await docker.ok("run", "--rm", ...flags.split(" "), engines.image, "sh", "-c", script)).split("\n")).toEqual(
    ["1000", "touch: /y: Read-only file system", "Filesystem", "tmpfs", "shm", "77", "0000000000002000", "1", "h1", "from the host"].concat(
      ["mkdir: can't create directory '/x/d': Operation not permitted", "67108864", ""],
    ),
  );
  expect(await docker.ok("run", "--rm", "--init", engines.image, "cat", "/proc/1/comm")).toBe("docker-init\n");
  expect(await docker.run("run", "--name", "oom", "--memory", "64m", engines.image, "tail", "/dev/zero")).toMatchObject({ status: 137 });
  expect(await docker.ok("inspect", "--format", "{{.State.OOMKilled}}", "oom")).toBe("true\n");
  await docker.ok("rm", "oom");
});

test.runIf(isHusk)(
  "a service: ports, exec, logs, top, stats, cp, pause, update, restart, stop, kill, health",
  async ({ docker, engines }) => {
    const script = `mkdir -p /www; echo page >/www/index.html; trap "exit 3" TERM; echo started; httpd -f -p 80 -h /www & wait`;
    const flags = ["--publish", "8082:80", "--memory", "128m", "--health-cmd", "cat /www/index.html", "--health-interval", "1s"];
    await docker.ok("run", "--detach", "--name", "web", ...flags, engines.image, "sh", "-c", script);
    const served = ["sh", "-c", "until wget -q -O /dev/null http://127.0.0.1/; do :; done"];
    try {
      await docker.ok("exec", "web", ...served);
      expect(await engines.inside("busybox", "wget", "-q", "-O", "-", "http://127.0.0.1:8082/")).toBe("page\n");
      expect((await docker.run("exec", "web", "sh", "-c", "exit 4")).status).toBe(4);
      expect((await docker.run("exec", "web", "nosuch")).status).toBeGreaterThan(125);
      expect(await docker.ok("exec", "-u", "1000", "-w", "/tmp", "-e", "A=b", "web", "sh", "-c", "id -u; pwd; echo $A")).toBe(
        "1000\n/tmp\nb\n",
      );
      expect(await docker.ok("logs", "web")).toBe("started\n");
      expect(await docker.ok("top", "web")).toMatch(/^UID .*\n\w+ +\d+/);
      expect(await docker.ok("stats", "--no-stream", "--format", "{{.MemUsage}} {{.PIDs}}", "web")).toMatch(/^\S+MiB \/ 128MiB \d+\n$/);
      const copied = join(engines.folder, "shim-copied");
      await docker.ok("cp", "web:/www/index.html", copied);
      await docker.ok("cp", copied, "web:/www/again");
      expect(await docker.ok("exec", "web", "cat", "/www/again")).toBe("page\n");
      await docker.ok("pause", "web");
      expect(await docker.ok("inspect", "--format", "{{.State.Status}}", "web")).toBe("paused\n");
      await docker.ok("unpause", "web");
      await docker.ok("update", "--memory", "64m", "--memory-swap", "64m", "--cpus", "0.5", "web");
      expect(await docker.ok("exec", "web", "sh", "-c", "cd /sys/fs/cgroup; cat memory.max cpu.max")).toBe("67108864\n50000 100000\n");
      await docker.ok("restart", "--time", "5", "web");
      await docker.ok("exec", "web", ...served);
      await docker.ok("stop", "--time", "5", "web");
      expect(await docker.ok("inspect", "--format", "{{.State.Status}} {{.State.ExitCode}}", "web")).toBe("exited 3\n");
      await docker.ok("start", "web");
      const events = docker.start(["events", "--filter", "container=web", "--filter", "event=health_status", "--since", "0"]);
      await events.stdout?.until("health_status: healthy");
      events.signal("SIGKILL");
      await events.ended();
      await docker.ok("kill", "web");
      expect(await docker.ok("wait", "web")).toBe("137\n");
    } finally {
      await docker.run("rm", "--force", "web");
    }
  },
);

test.runIf(isHusk)(
  "--network, --pid and --ipc container: the first one's own, in the same virtual machine",
  async ({ docker, engines }) => {
    const serve = "echo page >/tmp/index.html; echo kept >/dev/shm/note; httpd -p 80 -h /tmp; exec sleep 1000";
    await docker.ok("run", "--detach", "--name", "first", "--ipc", "shareable", engines.image, "sh", "-c", serve);
    const joins = (...names: readonly string[]) => names.flatMap((name) => [`--${name}`, "container:first"]);
    try {
      await docker.ok("exec", "first", "sh", "-c", "until wget -q -O /dev/null http://127.0.0.1/; do :; done");
      const script = "wget -q -O - http://127.0.0.1/; cat /dev/shm/note; ps -o comm | grep -c httpd";
      expect(await docker.ok("run", "--rm", ...joins("network", "ipc", "pid"), engines.image, "sh", "-c", script)).toBe("page\nkept\n1\n");
      const apart = "ls /dev/shm; ps -o comm | grep -c httpd || true";
      expect(await docker.ok("run", "--rm", ...joins("network"), engines.image, "sh", "-c", apart)).toBe("0\n");
    } finally {
      await docker.run("rm", "--force", "first");
    }
  },
);

test.runIf(isHusk)("what the host alone has is refused by name, and leaves nothing", async ({ docker, engines }) => {
  const device = join(engines.folder, "shim-device");
  await engines.inside("mknod", device, "b", "7", "0");
  for (const [flags, words] of [
    [["--network", "host"], /the host's own network, which a VM cannot share/],
    [["--pid", "host"], /a VM cannot share the host's processes/],
    [["--ipc", "host"], /a VM cannot share the host's shared memory and message queues/],
    [["--device", device], /\(b 7:0\) is a device of the host, which the guest does not have/],
    [["--volume", "/run/docker-test.sock:/s"], /\/run\/docker-test\.sock is a unix socket/],
  ] as const) {
    const { status, stderr } = await docker.run("run", "--rm", ...flags, engines.image, "true");
    expect({ status, stderr }).toEqual({ status: 125, stderr: expect.stringMatching(words) });
  }
});
