/** A host whose templates are the test's own. */

import { closeSync, existsSync, openSync, readdirSync, readFileSync, statSync, utimesSync, writeSync } from "node:fs";
import { join } from "node:path";
import { expect } from "vitest";
import type { Bundle } from "./bundle.ts";
import type { Host } from "./host.ts";

/** What husk's trace says of a sandbox that was cloned. */
export const cloned = "restored from the template";

export class Templates {
  readonly folder: string;
  readonly env: Readonly<Record<string, string>>;
  readonly #host: Host;

  /** `more`: further lines of the configuration's section on templates. */
  constructor(host: Host, memory = "128MiB", most = 8, more = "") {
    this.#host = host;
    this.folder = host.path("templates");
    this.env = host.configuration(
      `[template]\nmost = ${most}\nfolder = "${this.folder}"\n${more}\n[vm]\nmemory = "${memory}"\naccel = "tcg"\n`,
    );
  }

  get names(): string[] {
    return existsSync(this.folder) ? readdirSync(this.folder).toSorted() : [];
  }

  /** A file of the one template that there is. */
  file(name: "ram" | "state" | "template.json" | "holder"): string {
    const [only, ...others] = this.names;
    if (only === undefined || others.length > 0) throw new Error(`expected one template, there are ${this.names.join(", ")}`);
    return join(this.folder, only, name);
  }

  /** Damages the RAM of the one template as a disk's fault would: nothing but the bytes shows it. */
  damage(): void {
    const ram = this.file("ram");
    const { mtime, atime } = statSync(ram);
    // Far below the kernel, where a guest always has something.
    patch(ram, "r+", "damage", 17 * 1024 * 1024);
    utimesSync(ram, atime, mtime);
    // A test cannot set the time to the nanosecond.
    const manifest = this.file("template.json");
    const changed = `"ramChanged": "${statSync(ram, { bigint: true }).mtimeNs}"`;
    patch(manifest, "w", readFileSync(manifest, "utf8").replace(/"ramChanged": "\d+"/, changed), 0);
  }

  /** Runs the bundle, which says hello, where the template is damaged: that costs a boot, and the template. */
  async findDamaged(bundle: Bundle): Promise<void> {
    const damaged = await this.run(bundle);
    expect(damaged.stdout).toBe("hello\n");
    expect(damaged.log).toMatch(/level=warning msg="the template failed, so the VM boots: .*the template's memory is damaged/);
    expect(damaged.trace).not.toContain(cloned);
    expect(this.names).toEqual([]);
    expect((await this.run(bundle)).trace).toContain(cloned);
  }

  /** Runs the bundle; answers what it said, and what husk said of it in its log. */
  async run(
    bundle: Bundle,
    env: Readonly<Record<string, string>> = {},
  ): Promise<{ readonly stdout: string; readonly log: string; readonly trace: string }> {
    const log = this.#host.path(this.#host.name("log"));
    const args = ["--log", log, "run", "--trace", "--bundle", bundle.path, this.#host.name()];
    const { status, stdout, stderr } = await this.#host.launch(args, { env: { ...this.env, ...env } }).ended();
    expect({ status, stderr }).toEqual({ status: 0, stderr: expect.stringContaining("program runs") });
    return { stdout, log: readFileSync(log, "utf8"), trace: stderr };
  }
}

function patch(path: string, flags: "r+" | "w", text: string, at: number): void {
  const file = openSync(path, flags);
  writeSync(file, text, at);
  closeSync(file);
}
