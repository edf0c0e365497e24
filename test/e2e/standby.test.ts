/** Sandboxes that stand by for the next container, where a template is kept warm. */
import { execFileSync } from "node:child_process";
import { existsSync, readdirSync, readFileSync, readlinkSync, rmSync } from "node:fs";
import { join } from "node:path";
import { describe, expect } from "vitest";
import type { Bundle } from "../harness/bundle.ts";
import { counter, finish, restore, say } from "../harness/counter.ts";
import { onDisk } from "../harness/disk.ts";
import { type Host, test } from "../harness/host.ts";
import { makeNetwork } from "../harness/network.ts";
import { descendants, readProcess } from "../harness/processes.ts";
import { isHusk } from "../harness/runtime.ts";
import { findPart, killPart } from "../harness/sandbox-processes.ts";
import { readyMs, Zygotes } from "../harness/zygotes.ts";

const taken = "taken from the pool";
const takenSpare = "taken by a supervisor that stood by";

/** A host whose templates are kept warm, with a sandbox that stands by. */
class Standbys {
  readonly zygotes: Zygotes;
  readonly folder: string;
  readonly env: Readonly<Record<string, string>>;
  readonly #host: Host;

  constructor(host: Host, warmSeconds: number, standby = true) {
    this.#host = host;
    this.zygotes = new Zygotes(host, warmSeconds, standby);
    this.folder = host.path("pools");
    this.env = { ...this.zygotes.env, HUSK_POOL: this.folder };
  }

  /** The pools that are there, without those of spares. */
  get pools(): string[] {
    return this.#folders.filter((name) => !name.includes(".spare"));
  }

  /** The pools of supervisors that have no sandbox. */
  get spares(): string[] {
    return this.#folders.filter((name) => name.includes(".spare"));
  }

  get #folders(): string[] {
    return existsSync(this.folder) ? readdirSync(this.folder) : [];
  }

  /** Has every sandbox that waits not be found any more. */
  hide(): void {
    for (const pool of this.pools) {
      for (const name of readdirSync(join(this.folder, pool))) if (name.endsWith(".sock")) rmSync(join(this.folder, pool, name));
    }
  }

  /** Waits until a supervisor without a sandbox waits. */
  async untilSpare(): Promise<void> {
    await this.#host.until(() => this.spares.some((pool) => this.waitingIn(pool) === 1), readyMs);
  }

  get waiting(): number {
    return this.pools.reduce((sum, pool) => sum + this.waitingIn(pool), 0);
  }

  waitingIn(pool: string): number {
    return readdirSync(join(this.folder, pool)).filter((name) => name.endsWith(".sock")).length;
  }

  /** Runs it; answers its output, and whether by a sandbox that stood by. */
  async run(bundle: Bundle): Promise<readonly [string, boolean]> {
    const { stdout, trace } = await this.zygotes.run(bundle, this.env);
    return [stdout, trace.includes(taken)];
  }

  /** Uses the template until a sandbox of it stands by. */
  async ready(bundle: Bundle): Promise<void> {
    await this.zygotes.warm(bundle);
    expect(this.pools).toEqual([]);
    expect((await this.run(bundle))[1]).toBe(false);
    await this.untilOneWaits();
  }

  async untilOneWaits(): Promise<void> {
    await this.#host.until(() => this.waiting === 1, readyMs);
  }
}

function supervisorOf(host: Host, id: string): { readonly pid: number } {
  const { supervisor } = JSON.parse(readFileSync(join(host.root, id, "state.json"), "utf8")) as { supervisor: { pid: number } };
  return supervisor;
}

describe.runIf(isHusk)("a sandbox that stands by", () => {
  test("is the next container's, each one itself, and is replaced", async ({ host }) => {
    const standbys = new Standbys(host, 600);
    const bundle = host.script("cat /proc/sys/kernel/random/boot_id /proc/sys/kernel/random/uuid; ls /");
    await standbys.ready(bundle);
    const outputs: string[][] = [];
    for (let round = 0; round < 2; round++) {
      const [stdout, isTaken] = await standbys.run(bundle);
      expect(isTaken).toBe(true);
      outputs.push(stdout.split("\n"));
      await standbys.untilOneWaits();
    }
    const [one = [], other = []] = outputs;
    for (const line of [0, 1]) expect(one[line]).not.toBe(other[line]);
    for (const [, , ...files] of outputs) expect(files).toEqual([...readdirSync(bundle.rootfs).toSorted(), ""]);
    await standbys.untilSpare();
    const [, spare, row] = (await host.launch(["pool", "status"], { env: standbys.env }).ended()).stdout.split("\n");
    const { keeper } = standbys.zygotes;
    expect(spare).toMatch(new RegExp(`^[0-9a-f]{32}\\.spare .*, standing by, without a sandbox +1 +1 +${keeper}$`));
    expect(row).toMatch(new RegExp(`^[0-9a-f]{32}\\.standby .*, standing by +1 +1 +${keeper}$`));
    // Nobody has asked for it by that command, so nobody ends it by that.
    expect((await host.launch(["pool", "stop"], { env: standbys.env }).ended()).status).toBe(0);
    expect(standbys.waiting).toBe(1);
  });

  test("has the priority of whoever takes it, and goes on without its keeper", async ({ host }) => {
    const standbys = new Standbys(host, 600);
    await standbys.ready(host.script("true"));
    const { id, foreground } = await host.running(host.script("echo ready; cat"), { env: standbys.env, stdin: "pipe" });
    const { keeper } = standbys.zygotes;
    const nice = (pid: number): string | undefined => readFileSync(`/proc/${pid}/stat`, "utf8").split(") ")[1]?.split(" ")[16];
    const supervisor = supervisorOf(host, id);
    expect(readProcess(supervisor.pid)?.parent).toBe(keeper);
    for (const { pid } of [{ pid: supervisor.pid }, ...descendants(supervisor.pid)]) {
      for (const thread of readdirSync(`/proc/${pid}/task`)) expect([pid, nice(Number(thread))]).toEqual([pid, nice(process.pid)]);
    }
    await standbys.untilOneWaits();
    const waiting = descendants(keeper).find(({ command, pid }) => command.includes(" pool-member ") && pid !== supervisor.pid)?.pid ?? 0;
    process.kill(keeper, "SIGKILL");
    await host.until(() => readProcess(waiting) === undefined, 10_000);
    expect(await host.ok("exec", id, "echo", "alive")).toBe("alive\n");
    foreground.child.stdin?.end("bye\n");
    expect(await foreground.ended()).toEqual({ status: 0, stdout: "ready\nbye\n", stderr: "" });
    const { status } = await host.launch(["gc"], { env: standbys.env }).ended();
    expect([status, standbys.pools, standbys.spares]).toEqual([0, [], []]);
  });

  test("is nobody's whom it does not suit", async ({ host }) => {
    const standbys = new Standbys(host, 600);
    await standbys.ready(host.script("true"));
    const larger = host.script("echo hello", { linux: { resources: { memory: { limit: 192 * 1024 * 1024 } } } });
    expect(await standbys.run(larger)).toEqual(["hello\n", false]);
    expect(standbys.waiting).toBe(1);
    const nowhere = await host
      .launch(["--log", "/nonexistent/log", "run", "--bundle", host.script("true").path, host.name()], { env: standbys.env })
      .ended();
    expect(nowhere).toMatchObject({ status: 125, stderr: expect.stringMatching(/^husk: .*\/nonexistent\/log/) });
    expect(await standbys.run(onDisk(host, "echo hello"))).toEqual(["hello\n", false]);
    expect(await standbys.run(host.script("echo hello"))).toEqual(["hello\n", true]);
  });

  test("has its disk from its taker, where the container's root is an image", async ({ host }) => {
    const standbys = new Standbys(host, 600);
    const bundle = onDisk(host, "touch /kept; cat /kept; cat /proc/sys/kernel/random/uuid >/kept; ls /sys/block");
    const written = (): string => execFileSync("debugfs", ["-R", "cat /kept", bundle.image], { encoding: "utf8", stdio: "pipe" });
    await standbys.ready(bundle);
    expect(standbys.pools).toEqual([expect.stringMatching(/^[0-9a-f]{32}\.standby-image$/)]);
    // Each finds what the one before has written, and has one disk.
    for (let round = 0; round < 2; round++) {
      const kept = written();
      expect(await standbys.run(bundle)).toEqual([`${kept}vda\n`, true]);
      expect(written()).not.toBe(kept);
      await standbys.untilOneWaits();
    }
    expect(await standbys.run(host.script("echo hello"))).toEqual(["hello\n", false]);

    // A disk that is in use is refused as ever; and what was taken can be checkpointed, as what was started can.
    const other = onDisk(host, counter);
    const { id, foreground } = await host.running(other, { env: standbys.env, stdin: "pipe" });
    expect(await say(foreground, "a")).toBe("1 a\n");
    await host.until(() => standbys.pools.every((pool) => standbys.waitingIn(pool) === 1), readyMs);
    const refused = await host.launch(["run", "--bundle", other.path, host.name()], { env: standbys.env }).ended();
    expect(refused.stderr).toMatch(/^husk: root\.path: another virtual machine writes to the disk: /);
    await host.ok("checkpoint", "--image-path", host.path("checkpoint"), id);
    await foreground.ended();
    const restored = restore(host, other, host.path("checkpoint"));
    expect(await say(restored, "b")).toBe("2 b\n");
    expect(await finish(restored)).toBe("2 b\na\nb\n");
  });

  test("is that of a container in a network namespace of others, which it never enters itself", async ({ host }) => {
    const standbys = new Standbys(host, 600);
    const network = await makeNetwork(host);
    for (const words of ["link set eth0 address 02:00:00:00:00:77 mtu 1400", "link set lo up"]) network.ip(words);
    const [links, traffic] = [() => network.ip("-o link").match(/^\d+: [^:@]+/gm), () => network.tc("qdisc show")];
    const before = [links(), traffic()];
    const script = (text: string): Bundle => {
      const namespaces = [...["pid", "ipc", "uts", "mount"].map((type) => ({ type })), { type: "network", path: network.path }];
      return host.script(text, { linux: { namespaces } });
    };
    const look = script("ip -o link show eth0; ip -o address show eth0; ping -c 1 -q -W 20 10.93.7.1");
    await standbys.ready(look);
    const [stdout, isTaken] = await standbys.run(look);
    expect(isTaken).toBe(true);
    for (const part of ["mtu 1400", "02:00:00:00:00:77", "10.93.7.2/24", "1 packets received"]) expect(stdout).toContain(part);
    expect([links(), traffic()]).toEqual(before);
    await standbys.untilOneWaits();

    const { id, foreground } = await host.running(script("echo ready; sleep 1000"), { env: standbys.env });
    expect(readProcess(supervisorOf(host, id).pid)?.parent).toBe(standbys.zygotes.keeper);
    expect(links()).toContainEqual(expect.stringMatching(/ husk0$/));
    // What QEMU has is a namespace of its own, and the stand-in that of the container.
    const [qemu, standIn] = [findPart(host, id, "qemu"), readProcess((await host.state(id)).pid)];
    expect([qemu?.networkNamespace === standIn?.networkNamespace, standIn?.networkNamespace]).toEqual([false, readlinkSync(network.path)]);
    // Another one in it joins the first one's machine, and not what stands by.
    await standbys.untilOneWaits();
    expect(await standbys.run(script("ip -o link show eth0 | grep -o 02:00:00:00:00:77"))).toEqual(["02:00:00:00:00:77\n", false]);
    expect(standbys.waiting).toBe(1);
    await killPart(host, id, "qemu");
    expect((await foreground.ended()).status).toBe(137);
    expect([links(), traffic()]).toEqual(before);
    await network.close();
  });

  test("can be checkpointed with its folder, as what was started can", async ({ host }) => {
    const standbys = new Standbys(host, 600);
    await standbys.ready(host.script("true"));
    const bundle = host.script("exec 3>/kept; echo ready; while read line; do echo $line >&3; done; cat /kept");
    const { id, foreground } = await host.running(bundle, { env: standbys.env, stdin: "pipe" });
    expect(readProcess(supervisorOf(host, id).pid)?.parent).toBe(standbys.zygotes.keeper);
    foreground.stdin.write("a\n");
    await host.until(() => readFileSync(join(bundle.rootfs, "kept"), "utf8") === "a\n");
    await host.ok("checkpoint", "--leave-running", "--image-path", host.path("checkpoint"), id);
    foreground.stdin.end("b\n");
    expect(await foreground.ended()).toMatchObject({ status: 0, stdout: "ready\na\nb\n" });
    const restored = restore(host, bundle, host.path("checkpoint"));
    restored.stdin.write("c\n");
    expect(await finish(restored)).toBe("a\nc\n");
  });

  test("ends when nobody has used its template for a while, and is not there where nobody wants one", async ({ host }) => {
    const standbys = new Standbys(host, 8);
    await standbys.ready(host.script("true"));
    const { keeper } = standbys.zygotes;
    await host.until(() => readProcess(keeper) === undefined, 60_000);
    expect([standbys.pools, standbys.spares]).toEqual([[], []]);

    const without = new Standbys(host, 600, false);
    await without.zygotes.warm(host.script("true"));
    for (const _ of ["a copy's start", "and another's"]) expect((await without.run(host.script("true")))[1]).toBe(false);
    expect(existsSync(join(without.zygotes.record, "..", "standby.json"))).toBe(false);
  });
});

describe.runIf(isHusk)("a supervisor that stands by without a sandbox", () => {
  test("is the next container's while no sandbox waits, each one itself, and is replaced", async ({ host }) => {
    const standbys = new Standbys(host, 600);
    const bundle = host.script("cat /proc/sys/kernel/random/uuid; ls /");
    await standbys.ready(bundle);
    const { keeper } = standbys.zygotes;
    standbys.hide();
    const uuids = new Set<string>();
    for (let round = 0; round < 3; round++) {
      await standbys.untilSpare();
      const { stdout, trace } = await standbys.zygotes.run(bundle, standbys.env);
      const [uuid = "", ...files] = stdout.split("\n");
      uuids.add(uuid);
      expect(files).toEqual([...readdirSync(bundle.rootfs).toSorted(), ""]);
      expect(trace).toContain(takenSpare);
      expect(trace).toContain("QEMU copied");
      // It was there already.
      expect(trace).not.toContain("saved memory copied");
    }
    expect(uuids.size).toBe(3);
    // With an image as root, the copy's memory is the zygote's; and another machine it cannot have.
    await standbys.untilSpare();
    const { stdout, trace } = await standbys.zygotes.run(onDisk(host, "echo hello"), standbys.env);
    expect([stdout, trace.includes(takenSpare)]).toEqual(["hello\n", true]);
    await standbys.untilSpare();
    const larger = host.script("echo hello", { linux: { resources: { memory: { limit: 192 * 1024 * 1024 } } } });
    const other = await standbys.zygotes.run(larger, standbys.env);
    expect([other.stdout, other.trace.includes(takenSpare)]).toEqual(["hello\n", false]);
    // All that stands by goes with its template.
    const removed = await host.launch(["template", "rm", "--all"], { env: standbys.env }).ended();
    expect([removed.status, standbys.pools, standbys.spares, readProcess(keeper)?.state ?? "Z"]).toEqual([0, [], [], "Z"]);
  });

  test("is where its taker's would be, and what it leaves behind is seen to", async ({ host }) => {
    const standbys = new Standbys(host, 600);
    await standbys.ready(host.script("true"));
    standbys.hide();
    await standbys.untilSpare();
    const { id, foreground } = await host.running(host.script("echo ready; cat"), { env: standbys.env, stdin: "pipe" });
    const supervisor = supervisorOf(host, id);
    expect(readProcess(supervisor.pid)?.parent).toBe(standbys.zygotes.keeper);
    const cgroups = (pid: number): string => readFileSync(`/proc/${pid}/cgroup`, "utf8");
    for (const pid of [supervisor.pid, findPart(host, id, "sandbox")?.pid ?? 0]) expect(cgroups(pid)).toBe(cgroups(process.pid));
    for (const { pid } of descendants(supervisor.pid)) expect(cgroups(pid)).not.toContain("husk-pool");
    expect(await host.ok("exec", id, "echo", "alive")).toBe("alive\n");
    process.kill(supervisor.pid, "SIGKILL");
    expect((await foreground.ended()).status).toBe(137);
    await host.until(async () => (await host.ok("list", "-q")) === "");
  });

  test("ends with its keeper, and is not missed where it is killed", async ({ host }) => {
    const standbys = new Standbys(host, 600);
    await standbys.ready(host.script("true"));
    await standbys.untilSpare();
    const { keeper } = standbys.zygotes;
    const waiting = (): number[] =>
      descendants(keeper).flatMap(({ command, pid }) =>
        command.includes(" pool-member ") && command.includes('"spare":true') ? [pid] : [],
      );
    const [first = 0] = waiting();
    process.kill(first, "SIGKILL");
    await host.until(() => waiting().some((pid) => pid !== first), readyMs);
    await standbys.untilSpare();
    const [second = 0] = waiting();
    process.kill(keeper, "SIGKILL");
    await host.until(() => readProcess(second) === undefined, 10_000);
    expect((await host.launch(["gc"], { env: standbys.env }).ended()).status).toBe(0);
    expect([standbys.pools, standbys.spares]).toEqual([[], []]);
  });
});
