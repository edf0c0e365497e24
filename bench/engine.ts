/**
 * containerd and Docker from Debian's packages, in a network and a mount namespace of their own with a /run of their own, so that nothing of theirs touches the
 * machine, and everything they leave goes with those namespaces.
 */
import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { mkdirSync, mkdtempSync, readFileSync, symlinkSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { setTimeout as delay } from "node:timers/promises";
import { imageName, makeImage } from "../test/harness/image.ts";
import { type BenchHost, end } from "./bench-host.ts";
import { duration } from "./program.ts";

const path = "/usr/local/sbin:/usr/sbin:/usr/bin:/sbin:/bin";
const containerdSocket = "/run/bench/containerd.sock";
const dockerSocket = "/run/bench/docker.sock";

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
    const programs = join(this.#folder, "shims");
    mkdirSync(programs);
    symlinkSync(join(this.#host.checkout, "bin/containerd-shim-husk-v2"), join(programs, "containerd-shim-husk-v2"));
    const config = join(this.#folder, "containerd.toml");
    writeFileSync(
      config,
      `version = 2\nroot = "${this.#data}/containerd"\nstate = "/run/bench/containerd"\ndisabled_plugins = ["io.containerd.grpc.v1.cri"]\n[grpc]\naddress = "${containerdSocket}"\n`,
    );
    const templates = join(this.#folder, "shim.toml");
    writeFileSync(templates, `[vm]\nkernel = "own"\n[template]\nfolder = "${join(this.#host.folder, "templates")}"\n`);
    const cache = process.env["XDG_CACHE_HOME"];
    // Where the guest's image is, which a checkout has in the cache of whoever set it up.
    const home = { HOME: process.env["HOME"] ?? "/root", ...(cache === undefined ? {} : { XDG_CACHE_HOME: cache }) };
    const env = { ...home, PATH: `${programs}:${path}`, HUSK_CONFIG: templates, HUSK_POOL: "" };
    await this.#daemon(["containerd", "--config", config], env, ["ctr", "--address", containerdSocket, "version"]);
    await this.ctr("image", "import", this.#archive);
  }

  /** Starts Docker on that containerd, with the image. */
  async docker(): Promise<void> {
    const config = join(this.#folder, "daemon.json");
    const runtimes = { husk: { path: join(this.#host.checkout, "bin/husk") } };
    writeFileSync(config, JSON.stringify({ runtimes, "storage-driver": "overlay2" }));
    const folders = ["--data-root", join(this.#data, "docker"), "--exec-root", "/run/bench/docker", "--pidfile", "/run/bench/docker.pid"];
    const words = ["dockerd", "--config-file", config, ...folders, "--host", `unix://${dockerSocket}`, "--containerd", containerdSocket];
    await this.#daemon(words, {}, [...this.#dockerWords, "version"]);
    await this.#inside([...this.#dockerWords, "load", "--quiet", "--input", this.#archive]);
  }

  /** The image, as ctr names it. */
  readonly image = `docker.io/${imageName}`;

  /** Calls ctr, and answers its milliseconds. Throws where it fails. */
  ctr(...args: readonly string[]): Promise<number> {
    return this.#inside(["ctr", "--address", containerdSocket, ...args]);
  }

  /** How long `ctr run` of true takes. */
  ctrRun(runtime: "husk" | "runc"): Promise<number> {
    return this.ctr("run", "--rm", "--runtime", `io.containerd.${runtime}.v2`, this.image, this.#host.nextId(), "true");
  }

  /** The socket of a task's shim, by a path that this process can use. */
  shimSocket(id: string): string {
    const outside = (path: string): string => `/proc/${this.#holder.pid}/root${path}`;
    const address = readFileSync(outside(`/run/bench/containerd/io.containerd.runtime.v2.task/default/${id}/address`), "utf8");
    return outside(address.replace("unix://", ""));
  }

  /** How long `docker run` of true takes. */
  dockerRun(runtime: "husk" | "runc"): Promise<number> {
    return this.#inside([...this.#dockerWords, "run", "--rm", "--network", "none", "--runtime", runtime, imageName, "true"]);
  }

  async close(): Promise<void> {
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
