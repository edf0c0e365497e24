/** The pool: sandboxes that wait, the containers that take them, and what becomes of both when somebody is killed. */
import { existsSync, readdirSync, readFileSync, statSync } from "node:fs";
import { connect } from "node:net";
import { join } from "node:path";
import { text } from "node:stream/consumers";
import { describe, expect } from "vitest";
import type { Bundle } from "../harness/bundle.ts";
import { onDisk } from "../harness/disk.ts";
import { type Host, test } from "../harness/host.ts";
import { descendants, type HostProcess } from "../harness/processes.ts";
import type { Program, ProgramOptions, Result } from "../harness/program.ts";
import { isHusk } from "../harness/runtime.ts";

/** A sandbox boots or is cloned, and rehearses, giving way to everybody else. */
const readyMs = 120_000;

/** The pools of one test, in a folder of their own. */
class Pools {
  readonly folder: string;
  readonly env: Readonly<Record<string, string>>;
  readonly #host: Host;

  constructor(host: Host) {
    this.#host = host;
    this.folder = host.path("pools");
    this.env = { HUSK_POOL: this.folder };
  }

  /** Starts a pool, and answers once it is full. */
  async start(...flags: readonly string[]): Promise<Program> {
    const pool = this.#host.launch(["pool", ...flags], { env: this.env });
    this.#host.defer(() => pool.signal("SIGKILL"));
    await pool.stdout?.until("ready\n", readyMs);
    return pool;
  }

  /** The sockets at which sandboxes wait. */
  get waiting(): string[] {
    const keys = existsSync(this.folder) ? readdirSync(this.folder) : [];
    return keys.flatMap((key) => readdirSync(join(this.folder, key)).filter((name) => name.endsWith(".sock")));
  }

  async untilWaiting(count: number): Promise<void> {
    await this.#host.until(() => this.waiting.length === count, readyMs);
  }

  /** Ends the pool as its keeper would, and its sandboxes with it. */
  async stop(pool: Program): Promise<void> {
    expect(await this.#host.launch(["pool", "stop"], { env: this.env }).ended()).toEqual({ status: 0, stdout: "", stderr: "" });
    expect((await pool.ended()).status).toBe(0);
    expect(existsSync(this.folder)).toBe(false);
  }

  run(bundle: Bundle, flags: readonly string[] = [], options: ProgramOptions = {}): Promise<Result> {
    const args = ["run", "--trace", ...flags, "--bundle", bundle.path, this.#host.name()];
    return this.#host.launch(args, { ...options, env: { ...this.env, ...options.env } }).ended();
  }
}

const taken = (result: Result): boolean => result.stderr.includes("taken from the pool");

/** The processes in which sandboxes of a pool wait. */
function members(pool: Program): HostProcess[] {
  return descendants(pool.pid).filter(({ parent, command }) => parent === pool.pid && command.includes("pool-member"));
}

describe.runIf(isHusk)("a pool", () => {
  test("gives its sandboxes to containers, each with an identity of its own, and makes others", async ({ host }) => {
    const pools = new Pools(host);
    const pool = await pools.start("--size", "1");
    const [, row = ""] = (await host.launch(["pool", "status"], { env: pools.env }).ended()).stdout.split("\n");
    expect(row).toMatch(new RegExp(`^[0-9a-f]{32} .* kernel, 1 vCPU, .* 1 +1 +${pool.pid}$`));
    const script = host.script("cat /proc/sys/kernel/random/boot_id /proc/sys/kernel/random/uuid; date +%s; cat; ls /; exit 7");
    const outputs: string[][] = [];
    for (let round = 0; round < 2; round++) {
      await pools.untilWaiting(1);
      const id = host.name();
      const program = host.launch(["run", "--trace", "--bundle", script.path, id], { env: pools.env, stdin: "pipe" });
      program.stdin.end("what was typed\n");
      const result = await program.ended();
      expect([result.status, taken(result)]).toEqual([7, true]);
      expect(result.stderr).toContain("having set clock, random, hostname, machine-id");
      outputs.push(result.stdout.split("\n"));
    }
    const [one = [], other = []] = outputs;
    expect(one[0]).not.toBe(other[0]);
    expect(one[1]).not.toBe(other[1]);
    for (const [, , time, typed, ...files] of outputs) {
      expect(Math.abs(Number(time) - Date.now() / 1000)).toBeLessThan(30);
      expect(typed).toBe("what was typed");
      expect(files).toEqual([...readdirSync(script.rootfs).toSorted(), ""]);
    }
    await pools.untilWaiting(1);
    await pools.stop(pool);
  });

  test("has a sandbox that others join, and that goes on for them where its first container goes", async ({ host }) => {
    const pools = new Pools(host);
    const pool = await pools.start("--size", "1");
    const [first, second] = [host.name(), host.name()];
    const options = { env: pools.env };
    const lead = host.launch(["run", "--trace", "-d", "--bundle", host.script("echo ready; exec sleep 1000").path, first], options);
    expect(await lead.exited()).toBe(0);
    expect(lead.stderr?.text()).toContain("taken from the pool");
    const { pid } = await host.state(first);
    const network = { type: "network", path: `/proc/${pid}/ns/net` };
    const namespaces = [network, ...["ipc", "uts", "pid", "mount"].map((type) => ({ type }))];
    const beside = host.script("echo ready; exec sleep 1000", { linux: { namespaces } });
    const joined = host.launch(["run", "-d", "--bundle", beside.path, second], options);
    expect(await joined.exited()).toBe(0);
    await host.ok("delete", "--force", first);
    expect(await host.ok("exec", second, "echo", "alive")).toBe("alive\n");
    await host.ok("delete", "--force", second);
    await Promise.all([lead.ended(), joined.ended()]);
    await pools.stop(pool);
  });

  test("serves create, relative paths, the background and exec as front's own supervisor would", async ({ host }) => {
    const pools = new Pools(host);
    const pool = await pools.start("--size", "2");
    const bundle = host.script("echo ready; exec sleep 1000");
    const [background, created] = [host.name(), host.name()];
    const options = { env: pools.env, cwd: join(bundle.path, "rootfs") };
    const detached = host.launch(["run", "-d", "--bundle", "..", "--pid-file", "../pid", background], options);
    expect(await detached.exited()).toBe(0);
    const state = await host.state(background);
    expect(state).toMatchObject({ status: "running", bundle: bundle.path, pid: Number(readFileSync(join(bundle.path, "pid"), "utf8")) });
    expect(statSync(join(bundle.path, "pid")).mode & 0o777).toBe(0o644 & ~process.umask());
    expect(await host.ok("exec", background, "echo", "hello")).toBe("hello\n");
    const creating = host.launch(["create", "--bundle", "..", created], options);
    expect(await creating.exited()).toBe(0);
    expect((await host.state(created)).status).toBe("created");
    await host.ok("start", created);
    await creating.stdout?.until("ready\n");
    // The sandbox is where its container is, and its supervisor where the caller is.
    const supervisors = [background, created].map((id) => supervisorOf(host, id));
    for (const [index, id] of [background, created].entries()) {
      const qemu = descendants(supervisors[index] ?? 0).find(({ name }) => name.startsWith("qemu-system"));
      expect(readFileSync(`/proc/${qemu?.pid}/cgroup`, "utf8")).toContain(`:/${id}\n`);
      expect(readFileSync(`/proc/${supervisors[index]}/cgroup`, "utf8")).toBe(readFileSync("/proc/self/cgroup", "utf8"));
    }
    for (const id of [background, created]) await host.ok("delete", "--force", id);
    await Promise.all([detached.ended(), creating.ended()]);
    await pools.stop(pool);
  });

  test("declines what needs another sandbox, which costs nothing but the ordinary way", async ({ host }) => {
    const pools = new Pools(host);
    const pool = await pools.start("--size", "1");
    const larger = host.script("echo hello", { linux: { resources: { memory: { limit: 200 * 1024 * 1024 } } } });
    const [first] = pools.waiting;
    expect(await pools.run(larger)).toMatchObject({ status: 0, stdout: "hello\n", stderr: expect.not.stringContaining("from the pool") });
    const wrong = host.script("true", { process: { cwd: "relative" } });
    expect((await pools.run(wrong)).stderr).toMatch(/^husk: config.json: process.cwd: .*\n$/);
    const off = await pools.run(host.script("true"), [], { env: { HUSK_POOL: "" } });
    expect([off.status, taken(off)]).toEqual([0, false]);
    expect(pools.waiting).toEqual([first]);
    // Another pool has what it needs, and is told of by the one that is asked first.
    const other = await pools.start("--size", "1", "--memory", "200MiB");
    const results = [await pools.run(larger), await pools.run(host.script("true"))];
    expect(results.map((result) => [result.status, taken(result)])).toEqual([
      [0, true],
      [0, true],
    ]);
    const again = await host.launch(["pool", "--size", "1"], { env: pools.env }).ended();
    expect([again.status, again.stderr]).toEqual([1, expect.stringMatching(/^husk: there is a pool [0-9a-f]{32} already\n$/)]);
    await pools.stop(pool);
    expect((await other.ended()).status).toBe(0);
  });

  test("hangs up on a call of another installation, and waits on", async ({ host }) => {
    const pools = new Pools(host);
    const pool = await pools.start("--size", "1");
    await pools.untilWaiting(1);
    const [key = ""] = readdirSync(pools.folder);
    const [name = ""] = pools.waiting;
    const hello = { pid: process.pid, terminal: { stdin: false, stdout: false, stderr: false }, size: null };
    const inherited = { words: ["run", "other"], cwd: "/", umask: 0o22, environment: [] };
    const call = connect(join(pools.folder, key, name));
    call.write(`${JSON.stringify({ session: "run", program: "1:2:3", ...inherited, began: 1, hello })}\n`);
    expect(await text(call)).toBe("");
    await pools.untilWaiting(1); // it hangs up first, and listens again then
    expect(pools.waiting).toEqual([name]);
    expect(taken(await pools.run(host.script("true")))).toBe(true);
    await pools.stop(pool);
  });

  test("for images gives a container its disk, and others nothing", async ({ host }) => {
    const pools = new Pools(host);
    const pool = await pools.start("--size", "1", "--images");
    const bundle = onDisk(host, "touch /kept; cat /kept; echo kept >/kept; ls /sys/block");
    for (const expected of ["vda\n", "kept\nvda\n"]) {
      await pools.untilWaiting(1);
      const result = await pools.run(bundle);
      expect([result.status, result.stdout, taken(result)]).toEqual([0, expected, true]);
    }
    await pools.untilWaiting(1);
    expect(taken(await pools.run(host.script("true")))).toBe(false);
    expect((await host.launch(["pool", "status"], { env: pools.env }).ended()).stdout).toMatch(
      /\n[0-9a-f]{32}\.images .*, for images +1 +1 /,
    );
    await pools.stop(pool);
  });

  test("gives its last sandbox to one of two that want it at once", async ({ host }) => {
    const pools = new Pools(host);
    const pool = await pools.start("--size", "1");
    const bundle = host.script("echo hello");
    const results = await Promise.all([pools.run(bundle), pools.run(bundle)]);
    expect(results.map(({ status, stdout }) => [status, stdout])).toEqual([
      [0, "hello\n"],
      [0, "hello\n"],
    ]);
    expect(results.filter(taken)).toHaveLength(1);
    await pools.stop(pool);
  });

  test("refuses wrong sizes and words", async ({ host }) => {
    const { env } = new Pools(host);
    const refused = async (...args: readonly string[]): Promise<string> => {
      const { status, stdout, stderr } = await host.launch(["pool", ...args], { env }).ended();
      expect([status, stdout]).toEqual([1, ""]);
      return stderr;
    };
    expect(await refused()).toBe("husk: pool: expected --size N, from 1 to 1000\n");
    expect(await refused("--size", "0")).toBe("husk: pool: expected --size N, from 1 to 1000, got 0\n");
    expect(await refused("--size", "1001")).toBe("husk: pool: expected --size N, from 1 to 1000, got 1001\n");
    expect(await refused("--size", "1", "--vcpus", "0")).toContain("--vcpus");
    expect(await refused("--size", "1", "--memory", "lots")).toContain("--memory");
    expect(await refused("fill")).toBe('husk: pool: expected status, stop or nothing, got "fill"\n');
    expect(await refused("stop", "--size", "1")).toBe("husk: pool stop takes no flags\n");
    expect((await host.launch(["pool", "stop"], { env: { HUSK_POOL: "" } }).ended()).stderr).toContain("HUSK_POOL names none");
  });
});

describe.runIf(isHusk)("kill -9", () => {
  test("of a pool ends what waits and nothing that was taken; gc removes the rest", async ({ host }) => {
    const pools = new Pools(host);
    const pool = await pools.start("--size", "2");
    const { id, foreground } = await host.running(host.script("echo ready; cat"), { env: pools.env, stdin: "pipe" });
    const waiting = members(pool).filter(({ pid }) => pid !== supervisorOf(host, id));
    const theirs = waiting.flatMap(({ pid }) => [pid, ...descendants(pid).map((below) => below.pid)]);
    pool.signal("SIGKILL");
    await pool.ended();
    await host.until(() => theirs.every((pid) => !isRunning(pid)));
    expect(await host.ok("exec", id, "echo", "still here")).toBe("still here\n");
    await pools.untilWaiting(1);
    const [key = ""] = readdirSync(pools.folder);
    const { stdout } = await host.launch(["gc"], { env: pools.env }).ended();
    expect(stdout).toContain(`removed ${join(pools.folder, key)}\n`);
    expect(existsSync(pools.folder)).toBe(false);
    foreground.stdin.end("bye\n");
    expect(await foreground.ended()).toEqual({ status: 0, stdout: "ready\nbye\n", stderr: "" });
  });

  test("of what waits, or is being made, has the pool make another; of what was taken ends the container", async ({ host }) => {
    const pools = new Pools(host);
    const pool = await pools.start("--size", "1");
    const [member] = members(pool);
    const qemu = descendants(member?.pid ?? 0).find(({ name }) => name.startsWith("qemu-system"));
    process.kill(qemu?.pid ?? 0, "SIGKILL");
    await pool.stderr?.until("QEMU was killed by signal 9");
    await host.until(() => members(pool).some(({ pid }) => pid !== member?.pid), readyMs);
    for (const { pid } of members(pool)) process.kill(pid, "SIGKILL"); // in the middle of its making
    await pools.untilWaiting(1);
    const { id, foreground } = await host.running(host.script("echo ready; exec sleep 1000"), { env: pools.env });
    expect(members(pool).map(({ pid }) => pid)).toContain(supervisorOf(host, id));
    process.kill(supervisorOf(host, id), "SIGKILL");
    expect(await foreground.ended()).toMatchObject({ status: 137, stderr: "husk: the sandbox ended: its supervisor is gone\n" });
    await host.until(async () => (await host.ok("list", "-q")) === "");
    await pools.stop(pool);
  });

  test("of a supervisor at any moment of its taking leaves a container that runs, or nothing", async ({ host }) => {
    const pools = new Pools(host);
    const pool = await pools.start("--size", "1");
    const bundle = host.script("echo hello; sleep 1"); // its end is another matter
    for (const delayMs of [0, 10, 30, 60, 150]) {
      await pools.untilWaiting(1);
      const [member] = members(pool);
      const run = pools.run(bundle);
      const strike = setTimeout(() => {
        if (member !== undefined && isRunning(member.pid)) process.kill(member.pid, "SIGKILL");
      }, delayMs);
      const { status, stdout, stderr } = await run;
      clearTimeout(strike); // a fast machine is done by then
      // Before it is taken, another way is found; afterwards it is as with any supervisor.
      if (status === 0) expect(stdout).toBe("hello\n");
      else expect(stderr).toMatch(/supervisor is gone/);
      await host.until(async () => (await host.ok("list", "-q")) === "");
    }
    await pools.stop(pool);
  });

  test("of the caller ends what it had taken", async ({ host }) => {
    const pools = new Pools(host);
    const pool = await pools.start("--size", "1");
    const bundle = host.script("exec sleep 1000");
    for (const signal of ["SIGKILL", "SIGTERM"] as const) {
      await pools.untilWaiting(1);
      const id = host.name();
      const program = host.launch(["run", "--bundle", bundle.path, id], { env: pools.env });
      await host.until(() => existsSync(join(host.root, id)));
      program.signal(signal);
      expect((await program.ended()).status).not.toBe(0);
      await host.until(async () => (await host.ok("list", "-q")) === "");
    }
    await pools.stop(pool);
  });
});

function supervisorOf(host: Host, id: string): number {
  return (JSON.parse(readFileSync(join(host.root, id, "state.json"), "utf8")) as { supervisor: { pid: number } }).supervisor.pid;
}

function isRunning(pid: number): boolean {
  try {
    return !/^\d+ \(.*\) [ZX]/s.test(readFileSync(`/proc/${pid}/stat`, "utf8"));
  } catch {
    return false;
  }
}
