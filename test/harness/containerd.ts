/**
 * containerd with the runtime under test as a shim: io.containerd.husk.v2, or runc's where HUSK_RUNTIME=runc, which proves the tests. What ctr cannot say is
 * asked of the shim itself, in its own protocol.
 */
import { mkdirSync, readFileSync, symlinkSync } from "node:fs";
import { join, resolve } from "node:path";
import { TaskDefinition } from "../../src/gen/containerd/task/v2/task.ts";
import { TtrpcClient } from "../../src/ttrpc/client.ts";
import type { CallInput, Response } from "../../src/ttrpc/service.ts";
import type { Engine, Engines } from "./engines.ts";
import { type HostProcess, listProcesses } from "./processes.ts";
import type { Program, ProgramOptions, Result } from "./program.ts";
import { either } from "./runtime.ts";
import { qemuOf } from "./sandbox-processes.ts";

const shim = resolve(import.meta.dirname, "../../bin/containerd-shim-husk-v2");

/** How soon a test wants an answer of the shim's, in milliseconds. */
const callMs = 60_000;

type Methods = typeof TaskDefinition.methods;

/** Calls a method of the Task API. */
export type ShimCall = <M extends keyof Methods>(method: M, request: CallInput<Methods[M]>) => Promise<Response<Methods[M]>>;

/** An event as `ctr events` prints it. */
export interface ContainerdEvent {
  readonly topic: string;
  readonly body: Readonly<Record<string, unknown>>;
}

/** A folder in which programs look for shims, where husk's has the name `name`. */
export function shimFolder(engines: Engines, name: string): string {
  const folder = join(engines.folder, `shim-${name}`);
  mkdirSync(folder);
  symlinkSync(shim, join(folder, name));
  return folder;
}

export class Containerd {
  readonly ctr: Engine;
  /** As ctr names it. */
  readonly image: string;
  readonly runtime = either({ husk: "io.containerd.husk.v2", runc: "io.containerd.runc.v2" });
  readonly #engines: Engines;

  /** Starts it, with the image. `env`: the daemon's, and so the shims'. */
  static async start(engines: Engines, env: Readonly<Record<string, string>> = {}): Promise<Containerd> {
    const socket = await engines.containerd(shimFolder(engines, "containerd-shim-husk-v2"), undefined, env);
    const containerd = new Containerd(engines, engines.engine(["ctr", "--address", socket]));
    await containerd.ctr.ok("image", "import", ...engines.archives().slice(0, 1));
    return containerd;
  }

  private constructor(engines: Engines, ctr: Engine) {
    this.#engines = engines;
    this.ctr = ctr;
    this.image = `docker.io/${engines.image}`;
  }

  /** `ctr run FLAGS... IMAGE ID WORDS...`. */
  run(id: string, flags: readonly string[], words: readonly string[], options: ProgramOptions = {}): Program {
    return this.ctr.start(["run", ...flags, "--runtime", this.runtime, this.image, id, ...words], options);
  }

  /** The same, to its end. */
  ran(id: string, flags: readonly string[], ...words: readonly string[]): Promise<Result> {
    return this.run(id, ["--rm", ...flags], words).ended();
  }

  /** A container in the background; it is removed at the end of `use`. */
  async detached<T>(id: string, flags: readonly string[], words: readonly string[], use: () => Promise<T>): Promise<T> {
    const started = await this.run(id, ["--detach", ...flags], words).ended();
    if (started.status !== 0) throw new Error(`ctr run ended with ${started.status}: ${started.stderr}`);
    try {
      return await use();
    } finally {
      await this.remove(id);
    }
  }

  /** Ends a container, and forgets it. */
  async remove(id: string): Promise<void> {
    await this.ctr.run("task", "rm", "--force", id);
    await this.ctr.run("container", "rm", id);
  }

  /** ctr's word for a task's state. */
  async status(id: string): Promise<string> {
    const line = (await this.ctr.ok("task", "ls")).split("\n").find((each) => each.startsWith(`${id} `));
    return line?.trim().split(/\s+/)[2] ?? "GONE";
  }

  /** The task's bundle, as this process sees it. */
  bundle(id: string): string {
    return this.#engines.outside(`/run/containerd-test/io.containerd.runtime.v2.task/default/${id}`);
  }

  /** Calls a task's shim, as containerd does. */
  async shim<T>(id: string, use: (call: ShimCall) => Promise<T>): Promise<T> {
    const address = readFileSync(join(this.bundle(id), "address"), "utf8").replace("unix://", "");
    await using client = await TtrpcClient.connect(this.#engines.outside(address), { timeoutMs: callMs });
    return await use((method, request) => client.call(TaskDefinition, method, request, { timeoutMs: callMs }));
  }

  /** The Node process that serves a task; undefined where there is none (yet). */
  shimProcess(id: string): HostProcess | undefined {
    return listProcesses().find(
      ({ command, state }) => state !== "Z" && command.includes("shim.js serve ") && ` ${command} `.includes(` -id ${id} `),
    );
  }

  /** The QEMU of a task's sandbox. */
  qemu(id: string): HostProcess | undefined {
    const serving = this.shimProcess(id);
    return serving === undefined ? undefined : qemuOf(serving.pid);
  }

  /** Notes what happens while `use` runs, and until `last` has happened: the beginning of an event as ctr prints it. */
  async events(last: string, use: () => Promise<unknown>): Promise<ContainerdEvent[]> {
    const watcher = this.ctr.start(["events"]);
    try {
      // Nothing tells when it listens.
      for (let n = 1; !watcher.stdout?.text().includes("/namespaces/update"); n++)
        await this.ctr.ok("namespace", "label", "default", `n=${n}`);
      await use();
      await watcher.stdout?.until(new RegExp(` ${last}.*\n`));
    } finally {
      watcher.signal("SIGKILL");
      await watcher.ended();
    }
    return [...(watcher.stdout?.text() ?? "").matchAll(/ (\/tasks\/\S+) (\{.*\})$/gm)].map(([, topic = "", body = "{}"]) => ({
      topic,
      body: JSON.parse(body) as ContainerdEvent["body"],
    }));
  }
}
