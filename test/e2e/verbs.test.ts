/** The verbs around containers: spec, version, config, logs, gc, doctor. */
import { mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { describe, expect } from "vitest";
import { makeRootfs } from "../harness/bundle.ts";
import { test } from "../harness/host.ts";
import { either, isHusk } from "../harness/runtime.ts";
import { findPart } from "../harness/sandbox-processes.ts";
import { Terminal } from "../harness/terminal.ts";

test("spec writes a bundle's config.json, which runs as it is, on a terminal", async ({ host }) => {
  const bundle = host.path("box");
  mkdirSync(bundle);
  await host.ok("spec", "--bundle", bundle);
  const again = await host.runtime("spec", "--bundle", bundle);
  expect(again.status).toBe(1);
  expect(again.stderr).toMatch(/config\.json exists/);
  makeRootfs(`${bundle}/rootfs`);
  const terminal = Terminal.run(host, ["run", "--bundle", bundle, "box"]);
  await terminal.screen.until("# ");
  terminal.type("hostname; touch /x\n");
  await terminal.screen.until(`\r\n${either({ husk: "husk", runc: "runc" })}\r\n`);
  await terminal.screen.until("Read-only file system");
  terminal.type("exit 2\n");
  expect((await terminal.process.ended()).status).toBe(2);
});

test("spec --rootless writes one whose root is the caller, in a user namespace", async ({ host }) => {
  const bundle = host.path("box");
  mkdirSync(bundle);
  await host.ok("spec", "--rootless", "--bundle", bundle);
  makeRootfs(`${bundle}/rootfs`);
  const config = JSON.parse(readFileSync(`${bundle}/config.json`, "utf8")) as { process: object; linux: { uidMappings: object } };
  expect(config.linux.uidMappings).toEqual([{ containerID: 0, hostID: process.geteuid?.(), size: 1 }]);
  const script = "cat /proc/self/uid_map /proc/self/gid_map | tr -s ' '; id -u; tty; ls /sys >/dev/null && echo seen";
  const changed = { ...config, process: { ...config.process, terminal: false, args: ["sh", "-c", script] } };
  writeFileSync(`${bundle}/config.json`, JSON.stringify(changed));
  const mapped = ` 0 ${process.geteuid?.()} 1\n 0 ${process.getegid?.()} 1\n`;
  expect(await host.runtime("run", "--bundle", bundle, "box")).toEqual({ status: 0, stdout: `${mapped}0\nnot a tty\nseen\n`, stderr: "" });
});

test("version says what it is in its first line, and the spec's version", async ({ host }) => {
  for (const words of [["--version"], ["-v"]]) {
    expect(await host.ok(...words)).toMatch(
      either({ husk: /^husk version \d+\.\d+\.\d+\nspec: 1\.\d+\.\d+/, runc: /^runc version [^]*\nspec: 1\.\d+\.\d+/ }),
    );
  }
});

describe.runIf(isHusk)("husk's own", () => {
  test("config: every value and where it came from", async ({ host }) => {
    const env = host.configuration('[vm]\nmemory = "512MiB"\n');
    const { stdout } = await host.launch(["config"], { env }).ended();
    expect(stdout).toMatch(/^vcpus = 1 +# default$/m);
    expect(stdout).toContain(`memory = "512MiB"`);
    expect(stdout).toMatch(new RegExp(`^memory = "512MiB" +# ${env["HUSK_CONFIG"]}$`, "m"));
    const wrong = await host.launch(["config"], { env: host.configuration('[vm]\nmemroy = "1GiB"\n') }).ended();
    expect(wrong.status).toBe(1);
    expect(wrong.stderr).toMatch(/^husk: \S+: vm\.memroy: there is no such setting \(did you mean vm\.memory\?\)\n$/);
  });

  test("doctor: what this host can do, in one line each", async ({ host }) => {
    const { status, stdout } = await host.runtime("doctor");
    expect(status).toBe(0);
    for (const subject of ["KVM", "QEMU", "virtiofsd", "guest image", "cgroups"])
      expect(stdout).toMatch(new RegExp(`^(ok|warn) +${subject} +\\S`, "m"));
    expect(stdout).toMatch(/husk can run containers here/);
  });

  test("logs: the supervisor's, and the guest's console", async ({ host }) => {
    const { id, foreground } = await host.running(host.script("echo ready; echo from the container >/dev/kmsg; read line"), {
      stdin: "pipe",
    });
    const lines = (await host.ok("logs", id)).trimEnd().split("\n");
    expect(lines.map((line) => (JSON.parse(line) as { msg: string }).msg)).toContain("the container runs");
    expect((await host.runtime("logs", "--guest", id)).status).toBe(0);
    foreground.stdin.end("\n");
    expect((await foreground.ended()).status).toBe(0);
  });

  test("gc removes what nobody is left to remove, and nothing else", async ({ host }) => {
    const kept = await host.create(host.script("true"));
    const lost = await host.running(host.script("echo ready; exec sleep 1000"));
    const [supervisor, sandbox] = [findPart(host, lost.id, "supervisor"), findPart(host, lost.id, "sandbox")];
    if (supervisor === undefined || sandbox === undefined) throw new Error("no supervisor, or no sandbox");
    process.kill(supervisor.pid, "SIGSTOP"); // it shall not see that the others go first: each would clean up
    lost.foreground.signal("SIGKILL");
    process.kill(sandbox.pid, "SIGKILL");
    await lost.foreground.ended();
    process.kill(supervisor.pid, "SIGKILL");
    await host.until(async () => (await host.state(lost.id)).status === "stopped");
    expect(await host.ok("gc")).toContain(`removed the container ${lost.id}: ${host.root}/${lost.id}\n`);
    expect(await host.ok("list", "-q")).toBe(`${kept.id}\n`);
    expect(readFileSync(`${host.root}/${kept.id}/state.json`, "utf8")).toContain('"status": "created"');
    await host.ok("delete", kept.id);
    await kept.program.ended();
  });
});
