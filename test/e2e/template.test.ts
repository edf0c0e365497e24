/** Templates: made on first use, cloned from then on, and never the reason why a container does not run. */
import { createHash } from "node:crypto";
import { chmodSync, copyFileSync, existsSync, readFileSync, rmSync, truncateSync, utimesSync } from "node:fs";
import { join } from "node:path";
import { describe, expect } from "vitest";
import { test } from "../harness/host.ts";
import { descendants } from "../harness/processes.ts";
import { isHusk } from "../harness/runtime.ts";
import { cloned, Templates } from "../harness/template-host.ts";

function sha256(path: string): string {
  return createHash("sha256").update(readFileSync(path)).digest("hex");
}

describe.runIf(isHusk)("a template", () => {
  test("is made by the first sandbox, and every sandbox is cloned from it", async ({ host }) => {
    const templates = new Templates(host);
    const bundle = host.script("echo hello");
    const first = await templates.run(bundle);
    expect(first.log).toMatch(/made the template [0-9a-f]{32} in/);
    const second = await templates.run(bundle);
    expect(second.log).not.toContain("made the template");
    for (const { stdout, trace } of [first, second]) expect([stdout, trace.includes(cloned)]).toEqual(["hello\n", true]);
    // Its making has a mark of its own, after what is not a part of it.
    expect(first.trace).toMatch(/bundle read and checked\n.*template made\n.*VM launched/);
    expect(second.trace).toMatch(/bundle read and checked\n.*VM planned\n.*VM launched/);
    expect(templates.names).toHaveLength(1);
  });

  test("has another one beside it for another size, and none where that is said", async ({ host }) => {
    const templates = new Templates(host);
    await templates.run(host.script("true"));
    await new Templates(host, "192MiB").run(host.script("true"));
    expect(templates.names).toHaveLength(2);
    const third = await new Templates(host, "256MiB", 2).run(host.script("echo hello"));
    expect([third.stdout, third.trace.includes(cloned)]).toEqual(["hello\n", false]);
    expect(third.log).toContain(
      "the VM boots instead of being cloned from a template: others in use take all the room (template.most, template.most_bytes)",
    );
    expect(templates.names).toHaveLength(2);
    const env = host.configuration(`[template]\nenabled = false\nfolder = "${host.path("none")}"\n`);
    const { status, stderr } = await host.launch(["run", "--trace", "--bundle", host.script("true").path, host.name()], { env }).ended();
    expect([status, stderr.includes(cloned), existsSync(host.path("none"))]).toEqual([0, false, false]);
  });

  test("stays as it is, whatever its clones write", async ({ host }) => {
    const templates = new Templates(host);
    const bundle = host.script("dd if=/dev/urandom of=/dev/shm/x bs=1M count=32 2>/dev/null; echo $(stat -c %s /dev/shm/x)");
    await templates.run(host.script("true"));
    const before = [sha256(templates.file("ram")), sha256(templates.file("state"))];
    const outputs = await Promise.all([templates.run(bundle), templates.run(bundle)]);
    expect(outputs.map(({ stdout }) => stdout)).toEqual([`${32 << 20}\n`, `${32 << 20}\n`]);
    expect([sha256(templates.file("ram")), sha256(templates.file("state"))]).toEqual(before);
  });

  test("gives each clone an identity of its own", async ({ host }) => {
    const templates = new Templates(host);
    const program = host.path("static");
    copyFileSync("/bin/busybox", program);
    chmodSync(program, 0o755);
    // A hook that runs in the guest shows the container the guest's own file; the boot_id is drawn when somebody reads it first, so two that differ
    // were not drawn before the template was saved, but of the seed that each clone was given.
    const show = `read state; bundle=\${state#*\\"bundle\\":\\"}; bundle=\${bundle%%\\"*}
      [ -d $bundle/rootfs ] && bundle=$bundle/rootfs; cat /etc/machine-id >$bundle/guest-machine-id`;
    const hooks = { createContainer: [{ path: program, args: ["busybox", "sh", "-c", show] }] };
    const bundle = host.script("cat /guest-machine-id /proc/sys/kernel/random/boot_id /proc/sys/kernel/random/uuid; date +%s", { hooks });
    await templates.run(bundle);
    const [one, other] = [await templates.run(bundle), await templates.run(bundle)];
    for (const { trace } of [one, other]) {
      expect(trace).toContain(cloned);
      expect(trace).toContain("having set clock, random, hostname, machine-id");
    }
    const [first, second] = [one.stdout.split("\n"), other.stdout.split("\n")];
    for (const [machineId = ""] of [first, second]) expect(machineId).toMatch(/^(?!0{32})[0-9a-f]{32}$/); // the template's is all zeroes
    for (const field of [0, 1, 2]) expect(first[field], `line ${field}`).not.toBe(second[field]);
    expect(Math.abs(Number(second[3]) - Date.now() / 1000)).toBeLessThan(30);
  });

  test("tells the kernel of each clone that it is one", async ({ host }) => {
    const templates = new Templates(host);
    // The kernel hears of it by an interrupt, as soon as it runs, and whoever holds keys in it (WireGuard) with it.
    const script =
      'for i in $(seq 50); do dmesg | grep -q "crng reseeded due to virtual machine fork" && echo told && exit; sleep 0.1; done';
    const capabilities = ["bounding", "effective", "permitted"].map((set) => [set, ["CAP_SYSLOG"]]);
    const bundle = host.script(script, { process: { capabilities: Object.fromEntries(capabilities) } });
    for (const _ of ["that made it", "another"]) expect((await templates.run(bundle)).stdout).toBe("told\n");
  });

  test("is one tenant's, and no other's, where they have their own", async ({ host }) => {
    const templates = new Templates(host, "128MiB", 8, 'tenant = "red"\n[allow]\nannotations = ["io.husk.tenant"]');
    const [red, blue] = [host.script("echo hello"), host.script("echo hello", { annotations: { "io.husk.tenant": "blue" } })];
    expect((await templates.run(red)).log).toContain("made the template");
    const other = await templates.run(blue);
    expect([other.log.includes("made the template"), other.trace.includes(cloned)]).toEqual([true, true]);
    for (const bundle of [red, blue]) expect((await templates.run(bundle)).log).not.toContain("made the template");
    const husk = async (...args: string[]): Promise<string> => {
      const { status, stdout, stderr } = await host.launch(["template", ...args], { env: templates.env }).ended();
      expect([status, stderr]).toEqual([0, ""]);
      return stdout;
    };
    const [head = "", ...lines] = (await husk("ls")).trimEnd().split("\n");
    expect(head).toMatch(/^KEY +MACHINE +TENANT +SIZE +CREATED +LAST USED$/);
    expect(new Set(lines.map((line) => /name:\w+ +\d+MiB/.exec(line)?.[0].split(" ")[0]))).toEqual(new Set(["name:blue", "name:red"]));
    const [key = ""] = (await husk("ls", "--tenant", "blue")).split("\n")[1]?.split(" ") ?? [];
    expect(JSON.parse(await husk("inspect", key))).toMatchObject({ key, tenant: "name:blue", diskBytes: expect.any(Number) });
    expect(await husk("rm", "--all", "--tenant", "blue")).toBe(`${key}\n`);
    expect(await husk("create", "--tenant", "blue")).toBe(`${key}\n`);
    expect(templates.names).toHaveLength(2);
  });

  test("that is damaged in its memory costs a boot, and is made anew", async ({ host }) => {
    const templates = new Templates(host);
    const bundle = host.script("echo hello");
    await templates.run(bundle);
    templates.damage();
    await templates.findDamaged(bundle);
  });

  test.for([
    ["cut off", (templates: Templates) => truncateSync(templates.file("ram"), 4096), "its RAM has 4096 bytes"],
    ["written to", (templates: Templates) => utimesSync(templates.file("ram"), 1, 1), "its RAM was written to"],
    ["without its state", (templates: Templates) => rmSync(templates.file("state")), "no such file"],
    ["with another state", (templates: Templates) => truncateSync(templates.file("state"), 1000), "its state was changed"],
  ] as const)("that is %s is made anew", async ([, damage, why], { host }) => {
    const templates = new Templates(host);
    const bundle = host.script("echo hello");
    await templates.run(bundle);
    damage(templates);
    const { stdout, log, trace } = await templates.run(bundle);
    expect([stdout, trace.includes(cloned)]).toEqual(["hello\n", true]);
    expect(log).toMatch(new RegExp(`cannot be used: .*${why}.*it was removed`));
    expect(log).toContain("made the template");
  });

  test("can be made ahead, listed, looked at and removed", async ({ host }) => {
    const templates = new Templates(host);
    const husk = async (...args: string[]): Promise<string> => {
      const { status, stdout, stderr } = await host.launch(["template", ...args], { env: templates.env }).ended();
      expect([status, stderr]).toEqual([0, ""]);
      return stdout;
    };
    const key = (await husk("create")).trim();
    expect(templates.names).toEqual([key]);
    expect((await templates.run(host.script("true"))).log).not.toContain("made the template");
    expect(await husk("ls")).toMatch(new RegExp(`^KEY .*\\n${key} +own kernel, 1 vCPU, 256 MiB, tcg`));
    expect(JSON.parse(await husk("inspect", key))).toMatchObject({ key, ramBytes: 256 * 1024 * 1024 });
    expect(await husk("rm", key)).toBe(`${key}\n`);
    expect(templates.names).toEqual([]);
    const { status, stderr } = await host.launch(["template", "rm", key], { env: templates.env }).ended();
    expect([status, stderr]).toEqual([1, `husk: there is no template ${key}\n`]);
  });

  test("that is removed while a clone runs is not missed by it", async ({ host }) => {
    const templates = new Templates(host);
    const bundle = host.script("echo ready; cat");
    const { id, foreground } = await host.running(bundle, { env: templates.env, stdin: "pipe" });
    rmSync(templates.folder, { recursive: true });
    expect(await host.ok("exec", id, "echo", "still here")).toBe("still here\n");
    foreground.child.stdin?.end("bye\n");
    expect(await foreground.ended()).toEqual({ status: 0, stdout: "ready\nbye\n", stderr: "" });
  });

  test("is made by one of two that need it at once; the other boots", async ({ host }) => {
    const templates = new Templates(host);
    const bundle = host.script("echo hello");
    const runs = await Promise.all([templates.run(bundle), templates.run(bundle)]);
    expect(runs.map(({ stdout }) => stdout)).toEqual(["hello\n", "hello\n"]);
    expect(runs.filter(({ log }) => log.includes("made the template"))).toHaveLength(1);
    expect(runs.filter(({ log }) => /boots instead of being cloned from a template: process \d+ is making it/.test(log))).toHaveLength(1);
    expect(templates.names).toHaveLength(1);
  });

  test("whose making is killed leaves what gc removes, and nothing that runs", async ({ host }) => {
    const templates = new Templates(host);
    const bundle = host.script("echo hello");
    const started = host.launch(["run", "--bundle", bundle.path, host.name()], { env: templates.env });
    await host.until(() => templates.names.some((name) => name.endsWith(".making")), 30_000);
    for (const { pid, name } of descendants(started.child.pid ?? 0))
      if (name === "node" || name === "MainThread") process.kill(pid, "SIGKILL");
    expect((await started.ended()).status).not.toBe(0);
    const [left] = templates.names;
    expect(left).toMatch(/\.making$/);
    const { stdout } = await host.launch(["gc"], { env: templates.env }).ended();
    expect(stdout).toBe(`removed ${join(templates.folder, left ?? "")}\n`);
    expect(templates.names).toEqual([]);
    expect((await templates.run(bundle)).stdout).toBe("hello\n");
  });
});
