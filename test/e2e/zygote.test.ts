/** Zygotes: machines that stand still, of which new sandboxes are copies; and never the reason why a container does not run. */
import { createHash } from "node:crypto";
import { existsSync, readdirSync, readFileSync, readlinkSync, statSync } from "node:fs";
import { join } from "node:path";
import { describe, expect } from "vitest";
import type { Bundle } from "../harness/bundle.ts";
import { onDisk } from "../harness/disk.ts";
import { type Host, test } from "../harness/host.ts";
import { readProcess } from "../harness/processes.ts";
import { isHusk } from "../harness/runtime.ts";
import { findPart } from "../harness/sandbox-processes.ts";
import { cloned } from "../harness/template-host.ts";
import { readyMs, Zygotes } from "../harness/zygotes.ts";

/** What husk's trace says of a sandbox whose machine is a copy. */
const copied = "copy runs";

/** A container that runs, by a copy. */
async function start(host: Host, zygotes: Zygotes, bundle: Bundle) {
  const { id, foreground } = await host.running(bundle, { env: zygotes.env, stdin: "pipe" });
  return { id, foreground, qemu: findPart(host, id, "qemu")?.pid ?? 0 };
}

function sha256(path: string): string {
  return createHash("sha256").update(readFileSync(path)).digest("hex");
}

describe.runIf(isHusk)("a zygote", () => {
  test("is made at the second use of a template, and every sandbox from then on is its copy, each itself", async ({ host }) => {
    const zygotes = new Zygotes(host, 600);
    const bundle = host.script("cat /proc/sys/kernel/random/boot_id /proc/sys/kernel/random/uuid; date +%s");
    expect((await zygotes.run(bundle)).trace).toContain(cloned);
    expect((await zygotes.run(bundle)).trace).toContain(cloned);
    await host.until(() => existsSync(zygotes.record), readyMs);
    const before = sha256(zygotes.zygote.memory);
    const [one, other] = [await zygotes.run(bundle), await zygotes.run(bundle)];
    for (const { trace, log } of [one, other]) {
      expect(trace).toContain(copied);
      expect(trace).toContain("having set clock, random, hostname, machine-id");
      expect(log).not.toContain("failed");
    }
    const [first, second] = [one.stdout.split("\n"), other.stdout.split("\n")];
    for (const field of [0, 1]) expect(first[field], `line ${field}`).not.toBe(second[field]);
    expect(Math.abs(Number(second[2]) - Date.now() / 1000)).toBeLessThan(30);
    expect(sha256(zygotes.zygote.memory)).toBe(before);
  });

  test("has copies that are confined as any machine is, in namespaces, with cgroups and a user of their own", async ({ host }) => {
    const zygotes = new Zygotes(host, 600);
    await zygotes.warm(host.script("true"));
    const { id, foreground, qemu } = await start(host, zygotes, host.script("echo ready; cat"));
    const plain = await host.running(host.script("echo ready; cat"), { stdin: "pipe" });
    const booted = findPart(host, plain.id, "qemu")?.pid ?? 0;
    const field = (pid: number, name: string): string =>
      new RegExp(`^${name}:\\s+(.*)$`, "m").exec(readFileSync(`/proc/${pid}/status`, "utf8"))?.[1] ?? "";
    for (const name of ["CapPrm", "CapEff", "CapBnd", "NoNewPrivs", "Seccomp", "Seccomp_filters", "NSpid"]) {
      const [own, others] = [field(qemu, name), field(booted, name)];
      if (name === "NSpid") expect(own.split("\t")).toHaveLength(others.split("\t").length);
      else expect([name, own]).toEqual([name, others]);
    }
    const init = findPart(host, id, "init")?.pid ?? 0;
    for (const kind of ["pid", "net", "ipc", "uts", "mnt", "cgroup"])
      expect(readlinkSync(`/proc/${qemu}/ns/${kind}`)).toBe(readlinkSync(`/proc/${init}/ns/${kind}`));
    expect(readlinkSync(`/proc/${qemu}/root`)).toBe("/");
    expect(statSync(`/proc/${qemu}/root`).ino).toBe(statSync(`/proc/${init}/root`).ino);
    expect(readFileSync(`/proc/${qemu}/cgroup`, "utf8")).toBe(readFileSync(`/proc/${init}/cgroup`, "utf8"));
    expect(Number(field(qemu, "Uid").split("\t")[0])).toBeGreaterThan(1000);
    expect(field(qemu, "Uid")).not.toBe(field(booted, "Uid"));
    const nice = (pid: number): string | undefined => readFileSync(`/proc/${pid}/stat`, "utf8").split(") ")[1]?.split(" ")[16];
    for (const thread of readdirSync(`/proc/${qemu}/task`)) expect(nice(Number(thread))).toBe(nice(init));
    // Nothing of the zygote's is left to it by which it could be reached.
    const sockets = (pid: number): string[] =>
      readdirSync(`/proc/${pid}/fd`)
        .map((number) => readlinkSync(`/proc/${pid}/fd/${number}`))
        .filter((target) => target.startsWith("socket:"));
    const zygote = sockets(zygotes.zygote.process.pid);
    expect(sockets(qemu).filter((socket) => zygote.includes(socket))).toEqual([]);
    for (const each of [foreground, plain.foreground]) each.child.stdin?.end();
    expect((await foreground.ended()).status).toBe(0);
    expect((await plain.foreground.ended()).status).toBe(0);
  });

  test("serves sandboxes with disks, whose memory is the zygote's where they share nothing", async ({ host }) => {
    const zygotes = new Zygotes(host, 600);
    await zygotes.warm(host.script("true"));
    const { id, foreground, qemu } = await start(host, zygotes, onDisk(host, "echo mine >/written; sync; echo ready; cat"));
    const inode = statSync(zygotes.zygote.memory).ino;
    expect(readFileSync(`/proc/${qemu}/maps`, "utf8")).toMatch(new RegExp(`^\\S+ rw-p \\S+ \\S+ ${inode} `, "m"));
    expect(await host.ok("exec", id, "cat", "/written")).toBe("mine\n");
    foreground.child.stdin?.end("bye\n");
    expect(await foreground.ended()).toEqual({ status: 0, stdout: "ready\nbye\n", stderr: "" });
  });

  test("is there for several at once, and its copies live on where it is killed", async ({ host }) => {
    const zygotes = new Zygotes(host, 600);
    await zygotes.warm(host.script("true"));
    const started = await Promise.all(["a", "b", "c"].map(() => start(host, zygotes, host.script("echo ready; cat"))));
    const { pid } = zygotes.zygote.process;
    for (const { qemu } of started) expect(readProcess(qemu)?.parent).toBe(pid);
    process.kill(zygotes.keeper, "SIGKILL");
    await host.until(() => readProcess(pid) === undefined, 10_000);
    for (const { id } of started) expect(await host.ok("exec", id, "echo", "alive")).toBe("alive\n");
    // Whoever comes now finds none, and is cloned.
    const next = await zygotes.run(host.script("echo hello"));
    expect([next.stdout, next.trace.includes(cloned), next.trace.includes(copied)]).toEqual(["hello\n", true, false]);
    const [first, ...rest] = started;
    process.kill(first?.qemu ?? 0, "SIGKILL");
    expect((await first?.foreground.ended())?.status).toBe(137);
    for (const { foreground } of rest) {
      foreground.child.stdin?.end();
      expect((await foreground.ended()).status).toBe(0);
    }
  });

  test("that does not answer costs a clone, and no more", async ({ host }) => {
    const zygotes = new Zygotes(host, 600);
    await zygotes.warm(host.script("true"));
    process.kill(zygotes.zygote.process.pid, "SIGSTOP");
    const { stdout, log, trace } = await zygotes.run(host.script("echo hello"));
    expect([stdout, trace.includes(cloned)]).toEqual(["hello\n", true]);
    expect(log).toContain("the template's zygote failed, so the VM is cloned: ");
    await host.until(() => !existsSync(zygotes.record), 10_000);
  });

  test("tells of a copy's end as of any other's", async ({ host }) => {
    const zygotes = new Zygotes(host, 600);
    await zygotes.warm(host.script("true"));
    const { foreground, qemu } = await start(host, zygotes, host.script("echo ready; cat"));
    process.kill(qemu, "SIGKILL");
    const { status, stderr } = await foreground.ended();
    expect(status).toBe(137);
    expect(stderr).toMatch(/^husk: the sandbox of ".+" ended: QEMU was killed by signal 9/);
  });

  test("ends when nobody has used its template for a while, and with the template", async ({ host }) => {
    const zygotes = new Zygotes(host, 4);
    await zygotes.warm(host.script("true"));
    const { pid } = zygotes.zygote.process;
    await host.until(() => readProcess(pid) === undefined, 60_000);
    await host.until(() => !existsSync(join(zygotes.record, "..")), 10_000);

    const removed = new Zygotes(host, 600);
    await removed.warm(host.script("true"));
    const next = removed.zygote.process.pid;
    const { status } = await host.launch(["template", "rm", ...removed.names], { env: removed.env }).ended();
    expect([status, readProcess(next)?.state ?? "Z"]).toEqual([0, "Z"]); // ended, be it that its parent, the host's init, has not looked yet
  });
});
