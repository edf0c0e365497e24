/** Every process of a sandbox is killed, in every phase: each end is told at once, with a reason, and everything is given back. */
import { appendFileSync, existsSync, mkdirSync, rmSync } from "node:fs";
import { join } from "node:path";
import { describe, expect } from "vitest";
import { test } from "../harness/host.ts";
import { descendants, type HostProcess, readProcess } from "../harness/processes.ts";
import type { Program } from "../harness/program.ts";
import { isHusk } from "../harness/runtime.ts";
import { findPart, killPart, sandboxParts } from "../harness/sandbox-processes.ts";

/** The end is reported within a second where the machine is idle; tests are given more. */
const reportedMs = 5_000;

const reasons = {
  supervisor: /^husk: the sandbox ended: its supervisor is gone\n$/,
  sandbox: /^husk: the sandbox of "c2" ended: .*(sandbox|helper).* killed by signal 9.*\n$/,
  init: /^husk: the sandbox of "c2" ended: .* killed by signal 9.*\n$/,
  virtiofsd: /^husk: the sandbox of "c2" ended: virtiofsd was killed by signal 9.*\n$/,
  qemu: /^husk: the sandbox of "c2" ended: QEMU was killed by signal 9.*\n$/,
} as const;

/** What a caller sees of the end: one line at most, and a status that says failure. */
function expectOneLine(stderr: string, pattern: RegExp): void {
  expect(stderr.trimEnd().split("\n")).toHaveLength(1);
  expect(stderr).toMatch(pattern);
}

const waits = "echo ready; exec sleep 1000";

test.runIf(isHusk)("whoever waits for a container hears of its end where that cannot be written down", async ({ host }) => {
  const { id, program } = await host.create(host.script("trap 'exit 3' TERM; echo ready; while :; do sleep 1000 & wait; done"));
  await host.ok("start", id);
  await program.stdout?.until("ready\n");
  const { pid } = await host.state(id);
  mkdirSync(`${host.root}/${id}/state.json.new`); // where the record's next version is written
  await host.ok("kill", id);
  await host.until(async () => !existsSync(`/proc/${pid}`) && (await host.state(id)).status === "stopped");
  await host.ok("delete", id);
});

test.runIf(isHusk)("a container in the foreground ends with its status where something of it cannot be given back", async ({ host }) => {
  const { id, foreground } = await host.running(host.script("echo ready; read line; exit 3"), { stdin: "pipe" });
  const stays = host.path("stays");
  mkdirSync(stays);
  appendFileSync(`${host.root}/${id}/ledger.jsonl`, `${JSON.stringify({ kind: "file", path: stays })}\n`); // which is no file
  foreground.stdin.end("\n");
  const { status, stderr } = await foreground.ended();
  expect({ status, stderr }).toEqual({ status: 3, stderr: expect.stringMatching(/^husk: warning: cannot give back the file .*stays/) });
  rmSync(stays, { recursive: true });
  await host.ok("delete", id);
});

test.runIf(isHusk)(
  "QEMU that somebody asked to end is said to have been asked, and not the guest to have ended by itself",
  async ({ host }) => {
    const { id, foreground } = await host.running(host.script(waits));
    process.kill(findPart(host, id, "qemu")?.pid ?? 0, "SIGTERM");
    expect(await foreground.exited(reportedMs)).toBe(137);
    expectOneLine(
      (await foreground.ended()).stderr,
      /^husk: the sandbox of "c2" ended: QEMU ended as it was asked to: .*terminating on signal 15.*\n$/,
    );
  },
);

describe.runIf(isHusk)("kill -9", () => {
  test.for(sandboxParts)("of %s while a container runs, with an exec in it", async (part, { host }) => {
    const { id, foreground } = await host.running(host.script(waits));
    const exec = host.launch(["exec", id, "sh", "-c", waits]);
    await exec.stdout?.until("ready\n");
    await killPart(host, id, part);
    expect(await foreground.exited(reportedMs)).toBe(137);
    expect(await exec.exited(reportedMs)).toBe(137);
    expectOneLine((await foreground.ended()).stderr, reasons[part]);
    const after = await host.runtime("delete", "--force", id);
    expect(after).toEqual({ status: 0, stdout: "", stderr: "" });
  });

  test.for(["qemu", "supervisor"] as const)("of %s while an exec begins", async (part, { host }) => {
    const { id, foreground } = await host.running(host.script(waits));
    const execs = [1, 2, 3].map(() => host.launch(["exec", id, "sh", "-c", "echo; exec sleep 1000"]));
    await execs[0]?.stdout?.until("\n"); // the others are on their way
    await killPart(host, id, part);
    for (const exec of execs) expect(await exec.exited(reportedMs)).toBeGreaterThan(0);
    expect(await foreground.exited(reportedMs)).toBe(137);
    expect((await host.runtime("delete", "--force", id)).status).toBe(0);
  });

  test.for(sandboxParts)("of %s while a container is created", async (part, { host }) => {
    const bundle = host.script("echo never");
    const create = host.launch(["create", "--bundle", bundle.path, "c"]);
    await killPart(host, "c", part);
    expect(await create.exited(reportedMs)).not.toBe(0);
    const { stdout, stderr } = await create.ended();
    expect(stdout).toBe("");
    expectOneLine(stderr, /^husk: \S.*\n$/);
    expect((await host.runtime("delete", "--force", "c")).status).toBe(0);
    expect(await host.ok("list", "-q")).toBe("");
  });

  test.for(sandboxParts)("of %s while a container waits for its start", async (part, { host }) => {
    const { id, program } = await host.create(host.script("echo never"));
    await killPart(host, id, part);
    await program.ended(reportedMs); // its stand-in has ended
    await host.until(async () => (await host.state(id)).status === "stopped");
    const start = await host.runtime("start", id);
    expect(start).toEqual({ status: 1, stdout: "", stderr: `husk: cannot start a container that has stopped: ${id}\n` });
    await host.ok("delete", id);
  });

  test.for(["qemu", "supervisor"] as const)("of %s during start", async (part, { host }) => {
    const { id, program } = await host.create(host.script("true"));
    const start = host.launch(["start", id]);
    await killPart(host, id, part);
    await start.exited(reportedMs); // it may have been faster
    await program.ended(reportedMs);
    await host.until(async () => (await host.state(id)).status === "stopped");
    await host.ok("delete", id);
  });

  test("of a detached container's QEMU: it is stopped, with 137, until it is deleted", async ({ host }) => {
    const bundle = host.script(waits);
    const program = host.launch(["run", "-d", "--bundle", bundle.path, "d"]);
    expect(await program.exited()).toBe(0);
    await killPart(host, "d", "qemu");
    await program.ended(reportedMs);
    await host.until(async () => (await host.state("d")).status === "stopped");
    expect((await host.runtime("exec", "d", "true")).status).toBe(255);
    await host.ok("delete", "d");
  });

  test("of the exec's stand-in, and of front during the VM's start", async ({ host }) => {
    const { id, foreground } = await host.running(host.script(waits));
    const exec = host.launch(["exec", id, "sleep", "4321"]);
    await host.until(async () => (await host.ok("ps", id)).includes("sleep 4321"));
    exec.signal("SIGKILL");
    await exec.ended();
    await host.until(async () => !(await host.ok("ps", id)).includes("sleep 4321"));
    await host.ok("kill", id, "KILL");
    expect((await foreground.ended()).status).toBe(137);

    const starting = host.launch(["run", "--bundle", host.script(waits).path, "s"]);
    await host.until(() => findPart(host, "s", "qemu") !== undefined, 30_000);
    starting.signal("SIGKILL");
    await starting.ended();
    await host.until(async () => (await host.ok("list", "-q")) === "");
  });

  test("of front as soon as its supervisor is there, which has not heard of it yet", async ({ host }) => {
    const bundle = host.script(waits);
    for (const id of ["a", "b", "c"]) {
      const starting = host.launch(["run", "--bundle", bundle.path, id]);
      const supervisor = (): HostProcess | undefined =>
        descendants(starting.child.pid ?? 0).find(({ command }) => command.includes("dist/supervisor.js "));
      await host.until(() => supervisor() !== undefined);
      const { pid } = supervisor() ?? { pid: 0 };
      starting.signal("SIGKILL");
      await starting.ended();
      await host.until(() => readProcess(pid) === undefined, 30_000);
      expect(await host.ok("list", "-q")).toBe("");
    }
  });

  test("of a supervisor whose sandbox has ended, before it has given back the rest", async ({ host }) => {
    const struck = host.path("struck");
    // What sees to the rest runs it once more.
    const strike = `[ -e ${struck} ] || { : >${struck}; kill -9 $PPID; }`;
    const bundle = host.script("exit 3", { hooks: { poststop: [{ path: "/bin/sh", args: ["sh", "-c", strike] }] } });
    const { stderr } = await host.launch(["run", "--bundle", bundle.path, "s"]).ended();
    expectOneLine(stderr, reasons.supervisor);
    expect(existsSync(struck)).toBe(true);
    await host.until(async () => (await host.ok("list", "-q")) === "");
  });

  test("of a supervisor that has taken its id, and is about to launch its sandbox", async ({ host }) => {
    const bundle = host.script(waits);
    for (const id of ["a", "b", "c"]) {
      const folder = join(host.root, id);
      const claimed = host.until(() => existsSync(folder), 30_000);
      const starting = host.launch(["run", "--bundle", bundle.path, id]);
      await claimed;
      await killPart(host, id, "supervisor");
      expectOneLine((await starting.ended()).stderr, /^husk: \S.*\n$/);
      await host.until(() => !existsSync(folder));
    }
  });

  test("of the guest, by a panic of its kernel", async ({ host }) => {
    const bundle = host.script("echo ready; read line; echo c >/proc/sysrq-trigger; sleep 1000", { linux: { readonlyPaths: [] } });
    const { foreground } = await host.running(bundle, { stdin: "pipe" });
    foreground.stdin.end("\n");
    expect(await foreground.exited(reportedMs)).toBe(137);
    expectOneLine((await foreground.ended()).stderr, /^husk: the sandbox of "c2" ended: .*Kernel panic.*sysrq.*\n$/);
  });
});

describe.runIf(isHusk)("a frozen guest", () => {
  test("holds up neither state, kill, exec nor delete beyond their deadlines", async ({ host }) => {
    const env = host.configuration("[deadlines]\ncall_s = 2\nstop_s = 1\n");
    const { id, foreground } = await host.running(host.script(waits), { env });
    await killPart(host, id, "qemu", "SIGSTOP");
    const within = async (program: Program, boundMs: number): Promise<number> => program.exited(boundMs);
    expect((await host.state(id)).status).toBe("running");
    expect(await within(host.launch(["kill", id, "TERM"]), 4_000)).not.toBe(0);
    expect(await within(host.launch(["exec", id, "true"]), 4_000)).not.toBe(0);
    expect(await within(host.launch(["delete", "--force", id]), 10_000)).toBe(0);
    expect(await foreground.exited(reportedMs)).toBe(137);
  });

  test("a frozen supervisor is deleted by force, too", async ({ host }) => {
    const { id, foreground } = await host.running(host.script(waits));
    await killPart(host, id, "supervisor", "SIGSTOP");
    expect((await host.state(id)).status).toBe("running");
    await host.ok("delete", "--force", id);
    expect(await foreground.exited(reportedMs)).toBe(137);
  });
});
