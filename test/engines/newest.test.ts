/** containerd 2 and Docker 28, of the Debian to come: the Task API's version 3, what containerd learns of the runtime, a shim in a cgroup, docker top. */
import { existsSync, mkdirSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { expect } from "vitest";
import { Containerd } from "../harness/containerd.ts";
import { test as base } from "../harness/engines.ts";
import { expectRuncOptions } from "../harness/runc-options.ts";
import { isHusk } from "../harness/runtime.ts";

const test = base
  .override("generation", "newest")
  .extend("containerd", { scope: "file" }, ({ engines }) => Containerd.start(engines, { HUSK_SHIM_API: "3" }))
  .extend("docker", { scope: "file" }, async ({ containerd, engines }) => engines.docker(containerd.runtime));

test("run, exec, kill and metrics by the Task API's version 3", async ({ containerd }) => {
  expect(await containerd.ctr.ok("version")).toMatch(/Server:\n +Version: +2\./);
  expect(await containerd.ran("short", [], "sh", "-c", "echo out; echo err >&2; exit 7")).toEqual({
    status: 7,
    stdout: "out\n",
    stderr: expect.stringContaining("err\n"),
  });
  await containerd.detached("long", [], ["sleep", "1000"], async () => {
    if (isHusk) expect(JSON.parse(readFileSync(`${containerd.bundle("long")}/bootstrap.json`, "utf8"))).toMatchObject({ version: 3 });
    expect(await containerd.ctr.ok("task", "exec", "--exec-id", "e1", "long", "echo", "from exec")).toBe("from exec\n");
    expect(await containerd.ctr.ok("task", "metrics", "long")).toMatch(/memory\.usage_in_bytes|memory\.usage +[1-9]/);
    await containerd.ctr.ok("task", "kill", "--signal", "KILL", "long");
    await expect.poll(() => containerd.status("long"), { timeout: 30_000 }).toBe("STOPPED");
  });
});

test("the options that ctr asks of a runtime, and a user namespace", ({ containerd }) => expectRuncOptions(containerd));

test("containerd learns the runtime's features", async ({ containerd }) => {
  const info = JSON.parse(await containerd.ctr.ok("plugins", "inspect-runtime", "--runtime", containerd.runtime)) as {
    readonly Name: string;
    readonly Features: { readonly mountOptions: readonly string[] };
  };
  expect(info.Name).toBe(containerd.runtime);
  expect(info.Features.mountOptions).toContain("rro");
});

test.runIf(isHusk)(
  "a configuration that the runtime options name is in force, and what is wrong with it is said",
  async ({ containerd, engines }) => {
    const [good, bad] = [join(engines.folder, "good.toml"), join(engines.folder, "bad.toml")];
    writeFileSync(good, "[vm]\nvcpus = 2\n");
    writeFileSync(bad, "[vm]\nvcpu = 2\n");
    expect((await containerd.ran("two", ["--runtime-config-path", good], "nproc")).stdout).toBe("2\n");
    expect(await containerd.ran("none", ["--runtime-config-path", bad], "true")).toMatchObject({
      status: 1,
      stderr: expect.stringContaining(`${bad}: vm.vcpu: there is no such setting`),
    });
  },
);

test("docker top shows the container's own words, at a PID that is the host's", async ({ docker, engines }) => {
  try {
    await docker.ok("run", "--detach", "--name", "topped", engines.image, "sleep", "1234");
    const [, line = ""] = (await docker.ok("top", "topped", "-o", "pid,comm,args")).split("\n");
    expect(line).toMatch(/^\d+ +(sleep|busybox) +sleep 1234$/);
    const pid = await docker.ok("inspect", "--format", "{{.State.Pid}}", "topped");
    expect(line.split(" ")[0]).toBe(pid.trim());
    await docker.ok("kill", "topped");
    await docker.ok("wait", "topped");
    expect(existsSync(`/proc/${pid.trim()}`)).toBe(false);
  } finally {
    await docker.run("rm", "--force", "topped");
  }
});

test("what is mounted below a read-only bind mount is writable, or not there, as docker was asked", async ({ docker, engines }) => {
  const outer = join(engines.folder, "outer");
  const inner = join(outer, "inner");
  mkdirSync(inner, { recursive: true });
  await engines.inside("mount", "-t", "tmpfs", "tmpfs", inner);
  try {
    await engines.inside("touch", join(inner, "file"));
    const script = "touch /m/x 2>/dev/null; echo top=$?; ls /m/inner; touch /m/inner/file 2>/dev/null; echo inner=$?";
    const seen = async (option: string): Promise<string> => {
      const mount = `type=bind,src=${outer},dst=/m,readonly,${option}`;
      return docker.ok("run", "--rm", "--mount", mount, engines.image, "sh", "-c", script);
    };
    expect(await seen("bind-recursive=writable")).toBe("top=1\nfile\ninner=0\n");
    expect(await seen("bind-recursive=disabled")).toBe("top=1\ninner=1\n");
  } finally {
    await engines.inside("umount", inner);
  }
});

test.runIf(isHusk)("docker takes checkpoints, and starts from them with what was open and in the network", async ({ docker, engines }) => {
  const said = async (): Promise<number> => Number(await docker.ok("logs", "--tail", "1", "kept"));
  const script = "exec 3>/told; i=0; while :; do i=$((i+1)); echo $i; echo $i >&3; /bin/sleep 0.2; done";
  try {
    await docker.ok("run", "--detach", "--name", "kept", engines.image, "sh", "-c", script);
    await expect.poll(said, { timeout: 60_000 }).toBeGreaterThan(2);
    await docker.ok("checkpoint", "create", "--leave-running", "kept", "first");
    const before = await said();
    await expect.poll(said, { timeout: 60_000 }).toBeGreaterThan(before);
    await docker.ok("kill", "kept");
    await docker.ok("wait", "kept");
    await docker.ok("start", "--checkpoint", "first", "kept");
    // It knows how far it was then, and not how far it came afterwards: some numbers come twice.
    const numbers = async (): Promise<number[]> => (await docker.ok("logs", "kept")).trim().split("\n").map(Number);
    await expect.poll(async () => new Set(await numbers()).size < (await numbers()).length, { timeout: 60_000 }).toBe(true);
    const gateway = await docker.ok("inspect", "--format", "{{.NetworkSettings.Networks.bridge.Gateway}}", "kept");
    expect(await docker.ok("exec", "kept", "ping", "-c", "1", "-w", "20", gateway.trim())).toContain("1 packets received");
    const told = (await docker.ok("exec", "kept", "cat", "/told")).trim().split("\n").map(Number);
    expect(told).toEqual(told.map((_, index) => index + 1));
  } finally {
    await docker.run("rm", "--force", "kept");
    // Where containerd unpacks a checkpoint; it leaves that there.
    for (const name of readdirSync(tmpdir())) if (name.startsWith("ctrd-checkpoint")) rmSync(join(tmpdir(), name), { recursive: true });
  }
});
