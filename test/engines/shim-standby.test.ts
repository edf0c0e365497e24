/** husk's shim that stands by for the next task, where a template is kept warm. */
import { existsSync, mkdirSync, readdirSync, readFileSync, readlinkSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { expect } from "vitest";
import { Containerd } from "../harness/containerd.ts";
import { test as base, type Engines } from "../harness/engines.ts";
import { type HostProcess, listProcesses, readProcess } from "../harness/processes.ts";
import { isHusk } from "../harness/runtime.ts";
import { readyMs } from "../harness/zygotes.ts";

/** How the folder of a pool is called whose members are shims. */
const suffix = ".standby-shim";

const test = base.extend("containerd", { scope: "file" }, async ({ engines }) => {
  const config = join(engines.folder, "husk.toml");
  const template = `[template]\nfolder = "${join(engines.folder, "templates")}"\nwarm_s = 600\n`;
  writeFileSync(config, `${template}[vm]\nmemory = "128MiB"\naccel = "tcg"\n[deadlines]\ncall_s = 10\nstop_s = 5\n`);
  return Containerd.start(engines, { HUSK_CONFIG: config, HUSK_POOL: join(engines.folder, "pools") });
});

/** A template that is kept warm until the test's end, with a shim that stands by. */
class Standing implements AsyncDisposable {
  readonly #engines: Engines;
  readonly #containerd: Containerd;

  static async ready(engines: Engines, containerd: Containerd): Promise<Standing> {
    const standing = new Standing(engines, containerd);
    while (standing.waiting === undefined) {
      expect(await containerd.ran("warm", [], "true")).toEqual({ status: 0, stdout: "", stderr: "" });
      await expect.poll(() => standing.isAtRest(), { timeout: readyMs }).toBe(true);
    }
    return standing;
  }

  private constructor(engines: Engines, containerd: Containerd) {
    this.#engines = engines;
    this.#containerd = containerd;
  }

  get pools(): string {
    return join(this.#engines.folder, "pools");
  }

  /** The process that waits; undefined where there is none (yet, or any more). */
  get waiting(): HostProcess | undefined {
    const waits = below(this.pools, suffix).some((pool) => below(join(this.pools, pool), ".sock").length > 0);
    return waits ? this.#members()[0] : undefined;
  }

  async untilOneWaits(): Promise<HostProcess> {
    await expect.poll(() => this.waiting, { timeout: readyMs }).toBeDefined();
    return this.waiting ?? expect.fail("it does not wait any more");
  }

  /** Whether nothing more comes of the tasks that there were. */
  isAtRest(): boolean {
    const templates = join(this.#engines.folder, "templates");
    const ordered = below(templates).some((name) => existsSync(join(templates, name, "zygote", `standby-shim.json`)));
    if (ordered) return this.waiting !== undefined;
    const made = below(templates).filter((name) => existsSync(join(templates, name, "zygote", "zygote.json")));
    return made.length === keepers(this.#engines).length;
  }

  /** Which process serves a task in the background, and who would serve the next one. */
  async served(id: string, use: (pid: number) => Promise<unknown> = async () => {}, flags: readonly string[] = []): Promise<number> {
    let pid = 0;
    await this.#containerd.detached(id, flags, ["sleep", "1000"], async () => {
      pid = this.#containerd.shimProcess(id)?.pid ?? 0;
      await use(pid);
    });
    return pid;
  }

  #members(): HostProcess[] {
    return listProcesses().filter(({ command }) => command.includes("shim.js pool-member ") && command.includes(this.pools));
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await endKeepers(this.#engines);
    expect(below(this.pools)).toEqual([]);
  }
}

/** The processes that keep zygotes, or make them. */
function keepers({ folder }: Engines): HostProcess[] {
  return listProcesses().filter(({ command }) => command.includes(" zygote-keeper ") && command.includes(folder));
}

async function endKeepers(engines: Engines): Promise<void> {
  for (const { pid } of keepers(engines)) process.kill(pid, "SIGTERM");
  await expect.poll(() => keepers(engines), { timeout: readyMs }).toEqual([]);
}

function below(folder: string, end = ""): string[] {
  return existsSync(folder) ? readdirSync(folder).filter((name) => name.endsWith(end)) : [];
}

/** What a process has of whoever started it. */
function inherited(pid: number): object {
  const text = (name: string): string => readFileSync(`/proc/${pid}/${name}`, "utf8");
  return {
    umask: /^Umask:.*$/m.exec(text("status"))?.[0],
    cgroups: text("cgroup"),
    // Node makes the soft limit on descriptors the hard one.
    limits: text("limits").replace(/^(Max open files +)\S+ /m, "$1"),
    streams: [0, 1, 2].map((number) => readlinkSync(`/proc/${pid}/fd/${number}`)),
    cwd: readlinkSync(`/proc/${pid}/cwd`).replace(/[^/]+$/, ""),
    oom: text("oom_score_adj"),
  };
}

test.runIf(isHusk)("the next task is served by the shim that stood by, as by one that was started", async ({ engines, containerd }) => {
  await using standing = await Standing.ready(engines, containerd);
  const { pid } = await standing.untilOneWaits();
  let started: object = {};
  let taken: object = {};
  await standing.served("one", async (serving) => {
    expect(serving).toBe(pid);
    taken = inherited(pid);
    expect(await containerd.ctr.ok("task", "exec", "--exec-id", "e", "one", "cat", "/proc/sys/kernel/hostname")).not.toBe("");
    // While it has gone, and before the next one waits, a shim is started: it takes a second of this machine to make one.
    await standing.served(
      "two",
      async (other) => {
        started = inherited(other);
      },
      ["--memory-limit", String(200 * 1024 * 1024)],
    );
  });
  const log = (streams: object): object => JSON.parse(JSON.stringify(streams).replaceAll(/\/(one|two)\/log/g, "/ID/log")) as object;
  expect(log(taken)).toEqual(log(started));
  const next = await standing.untilOneWaits();
  expect(next.pid).not.toBe(pid);
  const words = ["sh", "-c", "cat; echo err >&2; exit 7"];
  const program = containerd.run("three", ["--rm"], words, { stdin: "pipe" });
  program.child.stdin?.end("in\n");
  expect(await program.ended()).toEqual({ status: 7, stdout: "in\n", stderr: "err\n" });
  await expect.poll(() => readProcess(next.pid), { timeout: 10_000 }).toBeUndefined();
});

test.runIf(isHusk)("a task that needs another machine has one of its own, and the shim stands by on", async ({ engines, containerd }) => {
  await using standing = await Standing.ready(engines, containerd);
  const { pid } = await standing.untilOneWaits();
  expect(await standing.served("large", undefined, ["--memory-limit", String(200 * 1024 * 1024)])).not.toBe(pid);
  expect(await standing.served("labelled", undefined, ["--annotation", "io.kubernetes.cri.container-type=sandbox"])).not.toBe(pid);
  expect((await standing.untilOneWaits()).pid).toBe(pid);
  expect(await standing.served("plain")).toBe(pid);
});

test.runIf(isHusk)("killed while it waits, and silent, it costs the next task nothing but its start", async ({ engines, containerd }) => {
  await using standing = await Standing.ready(engines, containerd);
  const { pid } = await standing.untilOneWaits();
  process.kill(pid, "SIGSTOP");
  expect(await standing.served("first")).not.toBe(pid);
  process.kill(pid, "SIGCONT");
  await expect.poll(() => standing.waiting?.pid, { timeout: 10_000 }).toBe(pid);
  expect(await standing.served("second")).toBe(pid);
  const next = await standing.untilOneWaits();
  process.kill(next.pid, "SIGKILL");
  expect(await standing.served("third")).not.toBe(next.pid);
});

test.runIf(isHusk)("killed when a task has it, containerd is told, and nothing is left", async ({ engines, containerd }) => {
  await using standing = await Standing.ready(engines, containerd);
  const { pid } = await standing.untilOneWaits();
  await standing.served("box", async (serving) => {
    expect(serving).toBe(pid);
    await endKeepers(engines);
    expect(await containerd.ctr.ok("task", "exec", "--exec-id", "e", "box", "echo", "alive")).toBe("alive\n");
    const events = await containerd.events("/tasks/exit", async () => process.kill(pid, "SIGKILL"));
    expect(events.find(({ topic }) => topic === "/tasks/exit")?.body).toMatchObject({ exit_status: 137 });
  });
  await engines.inside("sh", "-c", "rm -rf /run/containerd/fifo/*"); // ctr's own
});

test.runIf(isHusk).for([
  ["dies", "process.exit(1)"],
  ["dies when it listens already", "require('net').createServer().listen(socket, () => process.exit(1))"],
  ["is silent when it listens already", "require('net').createServer().listen(socket)"],
])("one that %s when it is to serve is ended, and another one is started", async ([, does], { engines, containerd }) => {
  const pool = join(engines.folder, "pools", `other${suffix}`);
  mkdirSync(pool, { recursive: true });
  const script = join(engines.folder, "odd.cjs");
  writeFileSync(
    script,
    `const say = (to, event) => to.write(JSON.stringify({ event }) + "\\n");
let socket = "";
require("net").createServer((start) => start.on("data", (data) => {
  const { words, op } = JSON.parse(data);
  if (op === "serve") { ${does}; return; }
  socket = words[words.indexOf("-socket") + 1];
  say(start, "suits");
})).listen(${JSON.stringify(join(pool, "1.sock"))}, () => console.log("waits"));`,
  );
  const odd = engines.start([process.execPath, script]);
  await odd.stdout?.until("waits\n");
  expect(await containerd.ran("box", [], "echo", "hello")).toEqual({ status: 0, stdout: "hello\n", stderr: "" });
  await odd.exited();
  rmSync(join(engines.folder, "pools"), { recursive: true });
  await endKeepers(engines);
});
