/** What the benchmarks run: husk from a checkout with a root folder of its own, runc beside it, and bundles of Debian's busybox. */
import { type ChildProcess, execFileSync, spawn } from "node:child_process";
import { once } from "node:events";
import { cpSync, globSync, mkdirSync, mkdtempSync, readFileSync, rmSync, symlinkSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join, resolve } from "node:path";
import { setTimeout as delay } from "node:timers/promises";
import { duration, type ProgramOptions, type Timing, time } from "./program.ts";

/** The guest's kernel. */
export type Flavour = "own" | "debian";

/** How a sandbox comes to be. */
export interface Way {
  readonly flavour?: Flavour;
  /** Whether it is cloned from a template; they are kept in the benchmarks' own folder. */
  readonly templates?: boolean;
  /** Whether the template has a zygote, of which it is a copy: see `BenchHost.warm`. */
  readonly warm?: boolean;
  /** The folder of a pool to take it from, or of pools in which sandboxes stand by. */
  readonly pool?: string;
}

/** A zygote gives way to everybody else while it is made. */
const zygoteMs = 300_000;

interface Spec {
  process: { terminal: boolean; args: string[] };
  root: { path: string; readonly: boolean };
  linux: { namespaces: { type: string; path?: string }[]; resources?: { memory?: { limit: number } } };
}

/** What a bundle has beside the program that it runs. */
export interface BundleOptions {
  /** The path of the network namespace that it joins. */
  readonly netns?: string;
  /** The container's limit: the virtual machine has vm.memory_overhead more. */
  readonly memoryBytes?: number;
}

export class BenchHost implements AsyncDisposable {
  readonly folder = mkdtempSync(join(tmpdir(), "husk-bench."));
  readonly checkout: string;
  /** husk's own root folder. */
  readonly root = join(this.folder, "husk");
  readonly #rootfs = join(this.folder, "rootfs");
  /** Whether this husk knows zygotes. */
  readonly #knowsZygotes: boolean;
  /** Whether sandboxes of this husk stand by where a template is kept warm. */
  readonly knowsStandby: boolean;
  readonly #detached: (() => Promise<unknown>)[] = [];
  /** What `warm` has answered, by what it was asked for. */
  readonly #warm = new Map<string, Promise<Way>>();
  #count = 0;

  /** `checkout`: the folder of the husk that is measured. */
  constructor(checkout = resolve(import.meta.dirname, "..")) {
    this.checkout = checkout;
    const settings = execFileSync(join(checkout, "bin/husk"), ["config"], { encoding: "utf8" });
    this.#knowsZygotes = /^warm_s = /m.test(settings);
    this.knowsStandby = /^standby = /m.test(settings);
    for (const name of ["bin", "dev", "etc", "proc", "sys", "tmp"]) mkdirSync(join(this.#rootfs, name), { recursive: true });
    cpSync("/bin/busybox", join(this.#rootfs, "bin/busybox"), { dereference: true });
    for (const applet of ["sh", "echo", "true", "sleep", "cat", "dd", "nc", "ip", "seq", "rm", "mkdir", "sync"]) {
      symlinkSync("busybox", join(this.#rootfs, "bin", applet));
    }
  }

  /** A new bundle that runs `args`. */
  async bundle(args: readonly string[], root: "folder" | "image" = "folder", { netns, memoryBytes }: BundleOptions = {}): Promise<string> {
    const bundle = join(this.folder, this.nextId("bundle"));
    mkdirSync(bundle);
    await time("runc", ["spec", "--bundle", bundle]);
    const file = join(bundle, "config.json");
    const spec = JSON.parse(readFileSync(file, "utf8")) as Spec;
    spec.process.terminal = false;
    spec.process.args = [...args];
    spec.root = { path: root === "folder" ? this.#rootfs : await this.#image(), readonly: root === "image" };
    const network = spec.linux.namespaces.find(({ type }) => type === "network");
    if (netns !== undefined && network !== undefined) network.path = netns;
    if (memoryBytes !== undefined) spec.linux.resources = { ...spec.linux.resources, memory: { limit: memoryBytes } };
    rmSync(file);
    writeFileSync(file, JSON.stringify(spec));
    return bundle;
  }

  /** The same root file system as an EROFS image. */
  #madeImage: Promise<string> | undefined;
  #image(): Promise<string> {
    this.#madeImage ??= (async () => {
      const image = join(this.folder, "root.erofs");
      await time("mkfs.erofs", [image, this.#rootfs]);
      return image;
    })();
    return this.#madeImage;
  }

  nextId(prefix = "bench"): string {
    this.#count += 1;
    return `${prefix}-${process.pid}-${this.#count}`;
  }

  /** Calls husk. */
  husk(way: Way, args: readonly string[], options: ProgramOptions = {}): Promise<Timing> {
    return time(join(this.checkout, "bin/husk"), ["--root", this.root, ...args], { ...options, env: this.#environment(way) });
  }

  /** Starts husk, with its outputs on pipes. */
  startHusk(way: Way, args: readonly string[]): ChildProcess {
    return spawn(join(this.checkout, "bin/husk"), ["--root", this.root, ...args], { env: this.#environment(way), stdio: "pipe" });
  }

  runc(args: readonly string[], options: ProgramOptions = {}): Promise<Timing> {
    return time("runc", ["--root", join(this.folder, "runc"), ...args], options);
  }

  startRunc(args: readonly string[]): ChildProcess {
    return spawn("runc", ["--root", join(this.folder, "runc"), ...args], { stdio: "pipe" });
  }

  /** How long a run of a bundle takes with husk, or with runc. */
  async run(runtime: Way | "runc", bundle: string): Promise<number> {
    const args = ["run", "--bundle", bundle, this.nextId()];
    return (await (runtime === "runc" ? this.runc(args) : this.husk(runtime, args))).endMs;
  }

  /** Runs a bundle in the background, until the benchmarks end or the answered function is called. */
  async detach(runtime: Way | "runc", bundle: string): Promise<{ readonly id: string; readonly remove: () => Promise<void> }> {
    const id = this.nextId();
    const args = ["run", "--detach", "--bundle", bundle, id];
    const call = (words: readonly string[]) => (runtime === "runc" ? this.runc(words, silent) : this.husk(runtime, words, silent));
    await call(args);
    const remove = async (): Promise<void> => {
      const index = this.#detached.indexOf(remove);
      if (index !== -1) this.#detached.splice(index, 1);
      await call(["delete", "--force", id]);
    };
    this.#detached.push(remove);
    return { id, remove };
  }

  /** Whether this husk has a command. */
  async has(verb: string): Promise<boolean> {
    return new RegExp(`^ +${verb} `, "m").test((await this.husk({}, ["--help"])).output);
  }

  /** What a start of Node that does nothing takes, in milliseconds: the least that a command in Node can take. */
  bareNode(): Promise<number> {
    return duration(process.execPath, ["-e", "0"], { env: withoutCertificates() });
  }

  /**
   * Has the template of what a bundle needs be made, and its zygote, which is there from then on. Answers the way for sandboxes that are its copies; of a husk that
   * knows no zygotes, for those that are cloned. All bundles need the same template.
   */
  warm(way: Way, bundle: string): Promise<Way> {
    const key = JSON.stringify(way);
    const warm = this.#warm.get(key) ?? this.#makeWarm(way, bundle);
    this.#warm.set(key, warm);
    return warm;
  }

  async #makeWarm(way: Way, bundle: string): Promise<Way> {
    await this.run(way, bundle); // the first makes the template
    if (!this.#knowsZygotes) return way;
    const warm = { ...way, warm: true };
    const zygotes = (): number => globSync(join(this.#templates, "*/zygote/zygote.json")).length;
    const before = zygotes();
    await this.run(warm, bundle);
    await until(() => zygotes() > before, "no zygote came");
    return warm;
  }

  /**
   * Has a sandbox of the template of `warm` stand by for what is like `bundle`, whose root is that; answers what runs `bundle` by it, as `run` does, once the next one stands by:
   * or, `atOnce`, by whatever is there. undefined where this husk has none.
   */
  async standby(
    warm: Way,
    bundle: string,
    root: "folder" | "image" = "folder",
    atOnce = false,
  ): Promise<(() => Promise<number>) | undefined> {
    if (!this.knowsStandby) return undefined;
    // A template's keeper has one pool for each kind, where it was first asked for.
    const standing = { ...warm, pool: join(this.folder, `standby-${root}`) };
    await this.run(standing, bundle);
    return async () => {
      if (!atOnce) await this.waits(standing.pool);
      return this.run(standing, bundle);
    };
  }

  /** Waits until a sandbox of one of the pools in that folder may be taken. Rejects where that takes too long. */
  async waits(pools: string): Promise<void> {
    await until(() => globSync(join(pools, "*/*.sock")).some((socket) => !socket.includes(".spare")), `nothing stands by in ${pools}`);
  }

  get #templates(): string {
    return join(this.folder, "templates");
  }

  #environment({ flavour = "own", templates = false, warm, pool = "" }: Way): NodeJS.ProcessEnv {
    const config = join(this.folder, `${flavour}${templates ? "-templates" : ""}${warm === true ? "-warm" : ""}.toml`);
    const zygotes = this.#knowsZygotes ? `\nwarm_s = ${warm === true ? 3600 : 0}` : "";
    const template = `enabled = ${templates}\nfolder = "${this.#templates}"${zygotes}`;
    // What is slow is to be measured as slow: of fifty that start at once on few processors, none answers as soon as it must alone.
    const deadlines = "boot_s = 900\ncall_s = 300";
    writeFileSync(config, `[vm]\nkernel = "${flavour}"\n[template]\n${template}\n[deadlines]\n${deadlines}\n`);
    return { ...withoutCertificates(), HUSK_CONFIG: config, HUSK_POOL: pool };
  }

  async [Symbol.asyncDispose](): Promise<void> {
    for (const remove of this.#detached.toReversed()) await remove();
    await this.husk({ templates: true }, ["template", "rm", "--all"]); // and with them their zygotes
    rmSync(this.folder, { recursive: true, force: true });
  }
}

const silent = { silent: true } as const;

/** Node reads them at each start where this is set, which is nothing of husk's. */
function withoutCertificates(): NodeJS.ProcessEnv {
  const { NODE_EXTRA_CA_CERTS: _, ...env } = process.env;
  return env;
}

/** Waits for what nothing tells of, and what gives way to everybody else. Throws, with `otherwise`, where it takes longer than it may. */
async function until(done: () => boolean, otherwise: string): Promise<void> {
  for (const late = Date.now() + zygoteMs; !done(); await delay(10)) {
    if (Date.now() > late) throw new Error(`${otherwise} within ${zygoteMs / 1000} s`);
  }
}

/** Ends a program that was started, and waits for it. */
export async function end(child: ChildProcess, signal: NodeJS.Signals = "SIGTERM"): Promise<void> {
  if (child.exitCode !== null || child.signalCode !== null) return;
  const ended = once(child, "exit");
  child.kill(signal);
  await ended;
}
