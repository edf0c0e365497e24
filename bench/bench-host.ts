/** What the benchmarks run: husk from this checkout with a root folder of its own, runc beside it, and a bundle of Debian's busybox. */
import { cpSync, mkdirSync, mkdtempSync, readFileSync, rmSync, symlinkSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join, resolve } from "node:path";
import { type ProgramOptions, type Timing, time } from "./program.ts";

interface Spec {
  process: { terminal: boolean; args: string[] };
}

export class BenchHost implements AsyncDisposable {
  readonly folder = mkdtempSync(join(tmpdir(), "husk-bench."));
  readonly bundle = join(this.folder, "bundle");
  readonly #husk = resolve(import.meta.dirname, "../bin/husk");
  readonly #detached: { readonly runtime: "husk" | "runc"; readonly id: string; readonly flavour: string }[] = [];
  #count = 0;

  constructor() {
    const rootfs = join(this.bundle, "rootfs");
    for (const name of ["bin", "dev", "etc", "proc", "sys", "tmp"]) mkdirSync(join(rootfs, name), { recursive: true });
    cpSync("/bin/busybox", join(rootfs, "bin/busybox"), { dereference: true });
    for (const applet of ["sh", "echo", "true", "sleep", "cat"]) symlinkSync("busybox", join(rootfs, "bin", applet));
  }

  /** Makes `args` the bundle's program. */
  async setProgram(args: readonly string[]): Promise<void> {
    const file = join(this.bundle, "config.json");
    rmSync(file, { force: true });
    await time("runc", ["spec", "--bundle", this.bundle]);
    const spec = JSON.parse(readFileSync(file, "utf8")) as Spec;
    spec.process.terminal = false;
    spec.process.args = [...args];
    writeFileSync(file, JSON.stringify(spec));
  }

  nextId(): string {
    this.#count += 1;
    return `bench-${process.pid}-${this.#count}`;
  }

  /** Calls husk; `flavour` is the guest's kernel, own or debian; `templates`: whether the machine is cloned from one, kept in the bench's own folder. */
  husk(flavour: string, args: readonly string[], options: ProgramOptions = {}, templates = false): Promise<Timing> {
    const config = join(this.folder, `${flavour}${templates ? "-templates" : ""}.toml`);
    writeFileSync(
      config,
      `[vm]\nkernel = "${flavour}"\n[template]\nenabled = ${templates}\nfolder = "${join(this.folder, "templates")}"\n`,
    );
    const { NODE_EXTRA_CA_CERTS: _, ...env } = process.env;
    return time(this.#husk, ["--root", join(this.folder, "husk"), ...args], { ...options, env: { ...env, HUSK_CONFIG: config } });
  }

  runc(args: readonly string[], options: ProgramOptions = {}): Promise<Timing> {
    return time("runc", ["--root", join(this.folder, "runc"), ...args], options);
  }

  /** Runs the bundle in the background, until the benchmarks end. Answers the container's id. */
  async detach(runtime: "husk" | "runc", flavour = "own"): Promise<string> {
    const id = this.nextId();
    const args = ["run", "--detach", "--bundle", this.bundle, id];
    await (runtime === "husk" ? this.husk(flavour, args, { silent: true }) : this.runc(args, { silent: true }));
    this.#detached.push({ runtime, id, flavour });
    return id;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    for (const { runtime, id, flavour } of this.#detached) {
      await (runtime === "husk" ? this.husk(flavour, ["delete", "--force", id]) : this.runc(["delete", "--force", id]));
    }
    rmSync(this.folder, { recursive: true, force: true });
  }
}
