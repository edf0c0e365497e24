/**
 * containerd and Docker from Debian's packages, in a network and a mount namespace of their own with a /run of their own, so that nothing of theirs touches the
 * machine, and everything they leave goes with those namespaces.
 */
import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { existsSync, globSync, mkdirSync, mkdtempSync, readFileSync, symlinkSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { setTimeout as delay } from "node:timers/promises";
import { imageName, makeImage } from "../test/harness/image.ts";
import { type BenchHost, end } from "./bench-host.ts";
import { duration } from "./program.ts";

const path = "/usr/local/sbin:/usr/sbin:/usr/bin:/sbin:/bin";
/** containerd, and one whose templates are kept warm, with a shim that stands by. */
type ContainerdName = "plain" | "standing";
const stateOf = (name: ContainerdName): string => `/run/bench/${name}`;
const socketOf = (name: ContainerdName): string => `${stateOf(name)}/containerd.sock`;
const dockerSocket = "/run/bench/docker.sock";

/** How long it may take until a shim stands by, in milliseconds: what makes it gives way to everybody else. */
const standingMs = 300_000;

/** How long a daemon may take to answer, in milliseconds. */
const daemonMs = 60_000;

export class Engines {
  readonly #host: BenchHost;
  readonly #holder: ChildProcess;
  readonly #daemons: ChildProcess[] = [];
  readonly #folder: string;
  readonly #archive: string;

  static async open(host: BenchHost): Promise<Engines> {
    const engines = new Engines(host);
    await once(engines.#holder.stdout ?? engines.#holder, "data");
    return engines;
  }

  private constructor(host: BenchHost) {
    this.#host = host;
    this.#folder = mkdtempSync(join(host.folder, "engines."));
    this.#archive = makeImage(this.#folder);
    mkdirSync(this.#data);
    const script = `mount -t tmpfs tmpfs /run && mkdir /run/bench /run/netns /run/lock && mount -t tmpfs tmpfs ${this.#data} && ip link set lo up && echo open && exec sleep 1000000`;
    this.#holder = spawn("unshare", ["--net", "--mount", "--propagation", "private", "sh", "-c", script], {
      stdio: ["ignore", "pipe", "inherit"],
    });
  }

  /** A tmpfs there: overlayfs takes no overlay as its upper folder. */
  get #data(): string {
    return join(this.#folder, "data");
  }

  /** Starts containerd, which finds husk's shim, with the image. */
  async containerd(): Promise<void> {
    await this.#startContainerd("plain", `folder = "${join(this.#host.folder, "templates")}"`, "");
  }

  /** Starts another one, whose shims stand by, as soon as they can; false where this husk has none that do. */
  async standingContainerd(): Promise<boolean> {
    if (!this.#host.knowsStandby) return false;
    // Those that keep its templates warm must be in its namespaces.
    await this.#startContainerd("standing", `folder = "${join(this.#folder, "templates")}"\nwarm_s = 3600`, this.#pools);
    const kept = (file: string): boolean => globSync(join(this.#folder, "templates/*/zygote", file)).length > 0;
    for (const late = Date.now() + standingMs; !kept("zygote.json"); await delay(1000)) {
      if (Date.now() > late) throw new Error("no template comes to be kept warm");
      await this.ctrRun("husk", "standing");
    }
    await this.ctrRun("husk", "standing");
    // It is ordered as soon as the task has ended, by a husk that knows how.
    for (let look = 0; look < 50 && !kept("standby-shim.json"); look++) await delay(100);
    return kept("standby-shim.json");
  }

  /** How long `ctr run` of true takes by the shim that stands by, once one does. */
  async standingRun(): Promise<number> {
    await this.#host.waits(this.#pools);
    return this.ctrRun("husk", "standing");
  }

  get #pools(): string {
    return join(this.#folder, "pools");
  }

  async #startContainerd(name: ContainerdName, template: string, pools: string): Promise<void> {
    const programs = join(this.#folder, `shims-${name}`);
    mkdirSync(programs);
    symlinkSync(join(this.#host.checkout, "bin/containerd-shim-husk-v2"), join(programs, "containerd-shim-husk-v2"));
    const config = join(this.#folder, `containerd-${name}.toml`);
    const [root, state, address] = [`${this.#data}/containerd-${name}`, stateOf(name), socketOf(name)];
    writeFileSync(
      config,
      `version = 2\nroot = "${root}"\nstate = "${state}"\ndisabled_plugins = ["io.containerd.grpc.v1.cri"]\n[grpc]\naddress = "${address}"\n`,
    );
    writeFileSync(this.#shimConfig(name), `[vm]\nkernel = "own"\n[template]\n${template}\n`);
    const env = { ...this.#shimEnv(name), PATH: `${programs}:${path}`, HUSK_POOL: pools };
    await this.#daemon(["containerd", "--config", config], env, ["ctr", "--address", address, "version"]);
    await this.#inside(["ctr", "--address", address, "image", "import", this.#archive]);
  }

  #shimConfig(name: ContainerdName): string {
    return join(this.#folder, `shim-${name}.toml`);
  }

  #shimEnv(name: ContainerdName): Record<string, string> {
    const cache = process.env["XDG_CACHE_HOME"];
    // Where the guest's image is, which a checkout has in the cache of whoever set it up.
    const home = { HOME: process.env["HOME"] ?? "/root", ...(cache === undefined ? {} : { XDG_CACHE_HOME: cache }) };
    return { ...home, HUSK_CONFIG: this.#shimConfig(name) };
  }

  /** Starts Docker on that containerd, with the image. */
  async docker(): Promise<void> {
    const config = join(this.#folder, "daemon.json");
    const runtimes = { husk: { path: join(this.#host.checkout, "bin/husk") } };
    writeFileSync(config, JSON.stringify({ runtimes, "storage-driver": "overlay2" }));
    const folders = ["--data-root", join(this.#data, "docker"), "--exec-root", "/run/bench/docker", "--pidfile", "/run/bench/docker.pid"];
    const words = ["dockerd", "--config-file", config, ...folders, "--host", `unix://${dockerSocket}`, "--containerd", socketOf("plain")];
    await this.#daemon(words, {}, [...this.#dockerWords, "version"]);
    await this.#inside([...this.#dockerWords, "load", "--quiet", "--input", this.#archive]);
  }

  /** The image, as ctr names it. */
  readonly image = `docker.io/${imageName}`;

  /** Calls ctr, and answers its milliseconds. Throws where it fails. */
  ctr(...args: readonly string[]): Promise<number> {
    return this.#inside(["ctr", "--address", socketOf("plain"), ...args]);
  }

  /** How long `ctr run` of true takes. */
  ctrRun(runtime: "husk" | "runc", name: ContainerdName = "plain"): Promise<number> {
    const words = ["run", "--rm", "--runtime", `io.containerd.${runtime}.v2`, this.image, this.#host.nextId(), "true"];
    return this.#inside(["ctr", "--address", socketOf(name), ...words]);
  }

  /** The socket of a task's shim, by a path that this process can use. */
  shimSocket(id: string): string {
    const outside = (path: string): string => `/proc/${this.#holder.pid}/root${path}`;
    const address = readFileSync(outside(`${stateOf("plain")}/io.containerd.runtime.v2.task/default/${id}/address`), "utf8");
    return outside(address.replace("unix://", ""));
  }

  /** How long `docker run` of true takes. */
  dockerRun(runtime: "husk" | "runc"): Promise<number> {
    return this.#inside([...this.#dockerWords, "run", "--rm", "--network", "none", "--runtime", runtime, imageName, "true"]);
  }

  async close(): Promise<void> {
    // With them the zygotes go, and what stands by.
    const env = { ...process.env, ...this.#shimEnv("standing") };
    if (existsSync(this.#pools)) await duration(join(this.#host.checkout, "bin/husk"), ["template", "rm", "--all"], { env });
    for (const daemon of this.#daemons.toReversed()) await end(daemon);
    await end(this.#holder, "SIGKILL");
  }

  get #dockerWords(): string[] {
    return ["/usr/bin/docker", "--host", `unix://${dockerSocket}`];
  }

  #words(command: readonly string[]): string[] {
    return [`--target=${this.#holder.pid}`, "--net", "--mount", "--wd=/", ...command];
  }

  /** Runs a program there, and answers its milliseconds. Throws where it fails. */
  #inside(command: readonly string[]): Promise<number> {
    return duration("nsenter", this.#words(command), { env: { PATH: path, DOCKER_CONFIG: join(this.#folder, "docker-config") } });
  }

  /** Starts a daemon; waits until a question is answered, since it tells of its readiness in no other way. */
  async #daemon(command: readonly string[], env: Readonly<Record<string, string>>, question: readonly string[]): Promise<void> {
    const daemon = spawn("nsenter", this.#words(command), { stdio: "ignore", env: { PATH: path, ...env } });
    this.#daemons.push(daemon);
    const late = Date.now() + daemonMs;
    for (let failure: unknown = true; failure !== undefined; ) {
      failure = await this.#inside(question).then(
        () => undefined,
        (error: unknown) => error,
      );
      if (failure !== undefined && (daemon.exitCode !== null || Date.now() > late)) {
        throw new Error(`${command[0]} does not answer`, { cause: failure });
      }
      if (failure !== undefined) await delay(100);
    }
  }
}
