/** Docker 26 and containerd 1.7, of Debian 13: Docker takes husk's shim by its own name, and sets a container's network up between its creation and its start. */
import { execFileSync } from "node:child_process";
import { expect } from "vitest";
import { shimFolder } from "../harness/containerd.ts";
import { test as base } from "../harness/engines.ts";
import { isHusk } from "../harness/runtime.ts";

const test = base.override("generation", "newer").extend("docker", { scope: "file" }, async ({ engines }) => {
  await engines.containerd(shimFolder(engines, "containerd-shim-husk-v2"));
  return engines.docker(isHusk ? "io.containerd.husk.v2" : "io.containerd.runc.v2");
});

test("run: the status, the streams, what cannot be executed, limits", async ({ docker, engines }) => {
  expect(await docker.ok("version", "--format", "{{.Server.Version}}")).toMatch(/^2[3-9]\./);
  expect(await docker.run("run", "--rm", engines.image, "sh", "-c", "uname -r; echo err >&2; exit 6")).toEqual({
    status: 6,
    stdout: isHusk ? expect.not.stringMatching(execFileSync("uname", ["-r"], { encoding: "utf8" })) : expect.any(String),
    stderr: "err\n",
  });
  for (const [program, status, words] of [
    ["nosuch", 127, /"nosuch": executable file not found in \$PATH/],
    ["/tmp", 126, /permission denied|is a directory/],
  ] as const) {
    expect(await docker.run("run", "--rm", engines.image, program)).toMatchObject({ status, stderr: expect.stringMatching(words) });
  }
  const flags = "--user 1000 --read-only --tmpfs /x:size=1m --ulimit nofile=77:88 --cap-drop all --cap-add net_raw --memory 64m --init";
  const script = "id -u; touch /y 2>&1; ulimit -n; grep CapBnd /proc/self/status; cat /proc/1/comm; ip -o link show eth0 | wc -l";
  expect((await docker.ok("run", "--rm", ...flags.split(" "), engines.image, "sh", "-c", script)).split("\n")).toEqual([
    "1000",
    "touch: /y: Read-only file system",
    "77",
    "CapBnd:\t0000000000002000",
    "docker-init",
    "1",
    "",
  ]);
});

test("services: names, ports, exec, top, stats, cp, a network that comes and goes, restart, health, stop", async ({ docker, engines }) => {
  const script = `mkdir -p /www; echo page >/www/index.html; trap "exit 3" TERM; echo started; httpd -f -p 80 -h /www & wait`;
  const health = ["--health-cmd", "cat /www/index.html", "--health-interval", "1s"];
  try {
    for (const name of ["front", "back"]) await docker.ok("network", "create", name);
    await docker.ok(
      "run",
      "--detach",
      "--name",
      "web",
      "--network",
      "front",
      "--publish",
      "8082:80",
      ...health,
      engines.image,
      "sh",
      "-c",
      script,
    );
    const fetch = (from: string) => `until wget -q -O - http://${from}/ 2>/dev/null; do :; done`;
    expect(await docker.ok("run", "--rm", "--network", "front", engines.image, "sh", "-c", fetch("web"))).toBe("page\n");
    expect(await engines.inside("busybox", "wget", "-q", "-O", "-", "http://127.0.0.1:8082/")).toBe("page\n");
    expect((await docker.run("exec", "web", "sh", "-c", "exit 4")).status).toBe(4);
    expect(await docker.ok("logs", "web")).toBe("started\n");
    expect(await docker.ok("top", "web")).toMatch(/^UID .*\n\w+ +\d+/);
    expect(await docker.ok("stats", "--no-stream", "--format", "{{.MemUsage}} {{.PIDs}}", "web")).toMatch(/^\S+[KM]iB \/ \S+ [1-9]\d*\n$/);
    expect(execFileSync("tar", ["-xO"], { input: await docker.ok("cp", "web:/www/index.html", "-"), encoding: "utf8" })).toBe("page\n");

    await docker.ok("network", "connect", "back", "web");
    await docker.ok("exec", "web", "sh", "-c", "until ip -o addr show eth1 2>/dev/null | grep -q inet; do :; done");
    expect(await docker.ok("run", "--rm", "--network", "back", engines.image, "sh", "-c", fetch("web"))).toBe("page\n");
    await docker.ok("network", "disconnect", "back", "web");
    await docker.ok("exec", "web", "sh", "-c", "while ip -o link show eth1 2>/dev/null; do :; done");

    await docker.ok("restart", "--time", "20", "web");
    expect(await docker.ok("exec", "web", "sh", "-c", fetch("127.0.0.1"))).toBe("page\n");
    const events = docker.start(["events", "--filter", "container=web", "--filter", "event=health_status", "--since", "0"]);
    await events.stdout?.until("health_status: healthy");
    events.signal("SIGKILL");
    await events.ended();
    await docker.ok("stop", "--time", "20", "web");
    expect(await docker.ok("inspect", "--format", "{{.State.Status}} {{.State.ExitCode}}", "web")).toBe("exited 3\n");
  } finally {
    await docker.run("rm", "--force", "web");
    for (const name of ["front", "back"]) await docker.run("network", "rm", name);
  }
});
