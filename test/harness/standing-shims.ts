/** Shims that stand by, where the templates are a test's own. */
import { existsSync, readdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { expect } from "vitest";
import type { Engines } from "./engines.ts";
import { type HostProcess, listProcesses } from "./processes.ts";
import { readyMs } from "./zygotes.ts";

/** How the folder of a pool is called whose members are shims. */
export const shimPools = ".standby-shim";

/** The environment of a containerd whose templates are kept warm. */
export function warmEnvironment({ folder }: Engines): Record<string, string> {
  const config = join(folder, "husk.toml");
  const template = `[template]\nfolder = "${join(folder, "templates")}"\nwarm_s = 600\n`;
  writeFileSync(config, `${template}[vm]\nmemory = "128MiB"\naccel = "tcg"\n[deadlines]\ncall_s = 10\nstop_s = 5\n`);
  return { HUSK_CONFIG: config, HUSK_POOL: join(folder, "pools") };
}

/** A template that is kept warm until the test's end, with a shim that stands by. */
export class StandingShims implements AsyncDisposable {
  readonly #engines: Engines;
  readonly #use: () => Promise<unknown>;

  /** `use`: starts a task that a shim will stand by for the like of, to its end. */
  static async ready(engines: Engines, use: () => Promise<unknown>): Promise<StandingShims> {
    const standing = new StandingShims(engines, use);
    await standing.#warm();
    return standing;
  }

  private constructor(engines: Engines, use: () => Promise<unknown>) {
    this.#engines = engines;
    this.#use = use;
  }

  async #warm(): Promise<void> {
    while (this.waiting === undefined) {
      await this.#use();
      await expect.poll(() => this.isAtRest(), { timeout: readyMs }).toBe(true);
    }
  }

  get pools(): string {
    return join(this.#engines.folder, "pools");
  }

  /** The process that waits; undefined where there is none (yet, or any more). */
  get waiting(): HostProcess | undefined {
    const waits = below(this.pools, shimPools).some((pool) => below(join(this.pools, pool), ".sock").length > 0);
    return waits ? this.#members()[0] : undefined;
  }

  /**
   * Waits until one stands by. A keeper that is gone, as it is when its zygote did not work for somebody, comes back with the next task: that is told, with what it
   * had to say, since it should be rare.
   */
  async untilOneWaits(): Promise<HostProcess> {
    try {
      await expect.poll(() => this.waiting !== undefined || this.#isAbandoned, { timeout: readyMs }).toBe(true);
    } catch (cause) {
      throw new Error(`nothing stands by, and its keeper is there. ${this.#logs}`, { cause });
    }
    if (this.waiting === undefined) {
      console.warn(`the keeper is gone, and is used once more. ${this.#logs}`);
      await this.#warm();
    }
    return this.waiting ?? expect.fail("it does not wait any more");
  }

  get #isAbandoned(): boolean {
    return keepers(this.#engines).length === 0;
  }

  /** What keepers have said. */
  get #logs(): string {
    const templates = join(this.#engines.folder, "templates");
    const logs = below(templates).map((name) => join(templates, name, "zygote.log"));
    return logs.flatMap((path) => (existsSync(path) ? [`${path}: ${readFileSync(path, "utf8")}`] : [])).join("\n");
  }

  /** Whether nothing more comes of the tasks that there were. */
  isAtRest(): boolean {
    const templates = join(this.#engines.folder, "templates");
    const ordered = below(templates).some((name) => existsSync(join(templates, name, "zygote", `standby-shim.json`)));
    if (ordered) return this.waiting !== undefined;
    const made = below(templates).filter((name) => existsSync(join(templates, name, "zygote", "zygote.json")));
    return made.length === keepers(this.#engines).length;
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

export async function endKeepers(engines: Engines): Promise<void> {
  for (const { pid } of keepers(engines)) process.kill(pid, "SIGTERM");
  await expect.poll(() => keepers(engines), { timeout: readyMs }).toEqual([]);
}

function below(folder: string, end = ""): string[] {
  return existsSync(folder) ? readdirSync(folder).filter((name) => name.endsWith(end)) : [];
}
