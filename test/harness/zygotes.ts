/** A host whose templates are kept warm, and are the test's own. */
import { existsSync, readFileSync } from "node:fs";
import { join } from "node:path";
import type { Bundle } from "./bundle.ts";
import type { Host } from "./host.ts";
import { listProcesses } from "./processes.ts";
import { Templates } from "./template-host.ts";

/** It gives way to everybody else while it is made. */
export const readyMs = 150_000;

interface Zygote {
  readonly process: { readonly pid: number };
  readonly memory: string;
}

export class Zygotes extends Templates {
  readonly #host: Host;

  /** `standby`: whether a sandbox stands by as well. */
  constructor(host: Host, warmSeconds: number, standby = false) {
    super(host, "128MiB", 8, `warm_s = ${warmSeconds}\nstandby = ${standby}\n`);
    this.#host = host;
    host.defer(() => this.end());
  }

  get record(): string {
    return join(this.folder, this.names[0] ?? "", "zygote", "zygote.json");
  }

  get zygote(): Zygote {
    return JSON.parse(readFileSync(this.record, "utf8")) as Zygote;
  }

  get keeper(): number {
    return (JSON.parse(readFileSync(join(this.folder, this.names[0] ?? "", "zygote", "owner.json"), "utf8")) as { pid: number }).pid;
  }

  /** Uses the template twice, and waits for the zygote that follows from it. */
  async warm(bundle: Bundle): Promise<void> {
    await this.run(bundle);
    await this.run(bundle);
    await this.#host.until(() => existsSync(this.record), readyMs);
  }

  /** As the administrator ends them, who waits for nothing; the template's folder is the test's. */
  async end(): Promise<void> {
    for (const pid of this.#keepers()) process.kill(pid, "SIGTERM");
    await this.#host.until(() => this.#keepers().length === 0, 30_000);
  }

  /** The processes that keep its zygotes, or make them. */
  #keepers(): number[] {
    return listProcesses()
      .filter(({ command }) => command.includes(` zygote-keeper {"template":`) && command.includes(this.folder))
      .map(({ pid }) => pid);
  }
}
