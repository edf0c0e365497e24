/**
 * Container engines for tests: containerd, Docker and Podman from Debian's packages, in a network and a mount namespace of their own with a /run of their own, so
 * that nothing they do touches the machine, and everything they leave is gone with those namespaces. One world for each test file; a leak check after each test.
 *
 *     import { test } from "../harness/engines.ts";
 *     test("...", async ({ engines }) => { const docker = await engines.docker(); await docker.ok("run", ...) });
 */
import { existsSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, rmdirSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { setTimeout as delay } from "node:timers/promises";
import { test as base } from "vitest";
import { imageName, makeImage, pauseName } from "./image.ts";
import { Program, type ProgramOptions, type Result } from "./program.ts";
import { program as runtime } from "./runtime.ts";
import { compareSnapshots, takeSnapshot } from "./snapshot.ts";

/** Everything of an ended container must be given back within this. */
const givenBackMs = 5_000;

/** How long a daemon may take to answer, and to end. */
const daemonMs = 60_000;

/** Where engines keep the cgroups of their containers; they stay until the next boot, and are taken away here. */
const engineCgroups = ["default", "docker", "libpod_parent", "kubepods"];

/** Where runtimes, shims and clients have a file or a folder for each container. */
const runFolders = [
  "/run/husk",
  "/run/husk-shim",
  "/run/husk-shim/netns",
  "/run/containerd/s",
  "/run/containerd/fifo",
  "/run/containerd-test/io.containerd.runtime.v2.task/default",
  "/run/containerd-test/io.containerd.runtime.v2.task/moby",
  "/run/docker-exec/runtime-runc/moby",
];

const path = "/usr/local/sbin:/usr/sbin:/usr/bin:/sbin:/bin";

/** The programs of newer engines, as tools/setup keeps them. */
const cache = join(process.env["XDG_CACHE_HOME"] ?? join(process.env["HOME"] ?? "/root", ".cache"), "husk");

/** Which engines: those of this system; containerd 1.7 and Docker 26; containerd 2 and Docker 28. */
export type Generation = "system" | "newer" | "newest";

/** An engine's command line. */
export class Engine {
  readonly #engines: Engines;
  readonly #command: readonly string[];
  readonly #env: Readonly<Record<string, string>>;

  constructor(engines: Engines, command: readonly string[], env: Readonly<Record<string, string>> = {}) {
    this.#engines = engines;
    this.#command = command;
    this.#env = env;
  }

  start(args: readonly string[], options: ProgramOptions = {}): Program {
    return this.#engines.start([...this.#command, ...args], { ...options, env: { ...this.#env, ...options.env } });
  }

  run(...args: readonly string[]): Promise<Result> {
    return this.start(args).ended(daemonMs);
  }

  /** Runs it, and throws with what it said where it does not succeed; answers its standard output. */
  async ok(...args: readonly string[]): Promise<string> {
    const { status, stdout, stderr } = await this.run(...args);
    if (status !== 0) throw new Error(`${args.join(" ")} ended with ${status}: ${stderr}`);
    return stdout;
  }

  /** The words that run it on a terminal of its own, for Terminal.around. */
  words(...args: readonly string[]): string[] {
    const env = Object.entries(this.#env).map(([name, value]) => `${name}=${value}`);
    return this.#engines.words(["env", ...env, ...this.#command, ...args]);
  }
}

export class Engines {
  /** A folder of the test's own that is the same inside and outside. */
  readonly folder: string;
  readonly image = imageName;
  /** A tmpfs in the engines' mount namespace: their data is in it, since overlayfs takes no overlay as its upper folder. */
  readonly #data: string;
  readonly #holder: Program;
  readonly #archive: string;
  readonly #generation: Generation;
  readonly #path: string;
  readonly #daemons: Program[] = [];
  readonly #programs: Program[] = [];
  readonly #hadCgroups = cgroupFolders();
  #docker: Promise<Engine> | undefined;
  #podman: Promise<Engine> | undefined;
  #containerd: Promise<string> | undefined;
  #containerdDaemon: Program | undefined;
  #launchContainerd: (() => Promise<void>) | undefined;

  static async open(generation: Generation = "system"): Promise<Engines> {
    const engines = new Engines(generation);
    await engines.#holder.stdout?.until("open\n");
    return engines;
  }

  private constructor(generation: Generation) {
    this.#generation = generation;
    this.#path = generation === "system" ? path : `${cache}/${generation}-engines:${path}`;
    this.folder = mkdtempSync(join(tmpdir(), "husk-engines-"));
    this.#data = join(this.folder, "data");
    mkdirSync(this.#data);
    this.#archive = makeImage(this.folder);
    const script = `mount -t tmpfs tmpfs /run && mkdir /run/netns /run/lock && mount -t tmpfs tmpfs /dev/shm && mount -t tmpfs tmpfs ${this.#data} && ip link set lo up && echo open && exec sleep 1000000`;
    this.#holder = new Program("unshare", ["--net", "--mount", "--propagation", "private", "sh", "-c", script]);
  }

  /** The words that run a program in the engines' namespaces. */
  words(command: readonly string[]): string[] {
    return ["nsenter", `--target=${this.#holder.pid}`, "--net", "--mount", "--wd=/", ...command];
  }

  /** Starts a program in the engines' namespaces. */
  start(command: readonly string[], options: ProgramOptions = {}): Program {
    const [first = "", ...rest] = this.words(command);
    const started = new Program(first, rest, { ...options, env: { PATH: this.#path, ...options.env } });
    this.#programs.push(started);
    return started;
  }

  /** The command line of an engine that runs already. */
  engine(command: readonly string[]): Engine {
    return new Engine(this, command);
  }

  /** A path as this process sees it, of one in the engines' mount namespace. */
  outside(inside: string): string {
    return `/proc/${this.#holder.pid}/root${inside}`;
  }

  /** Runs a program in the engines' namespaces to its end; throws where it fails. */
  async inside(...command: readonly string[]): Promise<string> {
    const { status, stdout, stderr } = await this.start(command).ended(daemonMs);
    if (status !== 0) throw new Error(`${command.join(" ")} ended with ${status}: ${stderr}`);
    return stdout;
  }

  /** Podman with the image loaded and the runtime under test. */
  podman(): Promise<Engine> {
    this.#podman ??= this.#startPodman();
    return this.#podman;
  }

  async #startPodman(): Promise<Engine> {
    const config = join(this.folder, "containers.conf");
    writeFileSync(
      config,
      '[engine]\ncgroup_manager = "cgroupfs"\nevents_logger = "file"\n[containers]\ndefault_ulimits = ["nofile=4096:4096", "nproc=4096:4096"]\n',
    );
    const folders = ["--root", join(this.#data, "podman"), "--runroot", "/run/podman-run", "--tmpdir", "/run/podman-tmp"];
    const engine = new Engine(
      this,
      ["podman", ...folders, "--storage-driver", "overlay", "--cgroup-manager", "cgroupfs", "--runtime", runtime],
      { CONTAINERS_CONF: config },
    );
    await engine.ok("load", "--quiet", "--input", this.#archive);
    return engine;
  }

  /** Starts containerd, and answers the path of its socket. `programs`: a folder put before PATH, where it looks for shims. `network`: a folder of CNI's
   * configuration, for pods: without one there is no CRI. `env`: further variables of containerd's, which its shims inherit. */
  containerd(programs?: string, network?: string, env: Readonly<Record<string, string>> = {}): Promise<string> {
    this.#containerd ??= this.#startContainerd(programs, network, env);
    return this.#containerd;
  }

  /** Kills containerd, and starts it again; `between`: done while it is away. */
  async restartContainerd(between: () => Promise<unknown>): Promise<void> {
    const daemon = this.#containerdDaemon;
    if (daemon === undefined) throw new Error("there is no containerd");
    this.#daemons.splice(this.#daemons.indexOf(daemon), 1);
    daemon.signal("SIGKILL");
    await daemon.exited();
    await between();
    await this.#launchContainerd?.();
  }

  /** How many descriptors containerd has open. */
  containerdDescriptors(): number {
    return entries(`/proc/${this.#containerdDaemon?.pid}/fd`).length;
  }

  /** The archives of the image, and of one that does nothing, for pods. */
  archives(): string[] {
    return [this.#archive, makeImage(this.folder, pauseName, ["/bin/sleep", "1000000"])];
  }

  async #startContainerd(
    programs: string | undefined,
    network: string | undefined,
    more: Readonly<Record<string, string>>,
  ): Promise<string> {
    const [config, socket] = [join(this.folder, "containerd.toml"), "/run/containerd-test/containerd.sock"];
    const plugins = network === undefined ? 'disabled_plugins = ["io.containerd.grpc.v1.cri"]' : "";
    writeFileSync(
      config,
      `version = 2\nroot = "${this.#data}/containerd"\nstate = "/run/containerd-test"\n${plugins}\n[grpc]\naddress = "${socket}"\n${network === undefined ? "" : criConfig(network, this.#generation)}`,
    );
    const env = programs === undefined ? more : { ...more, PATH: `${programs}:${this.#path}` };
    this.#launchContainerd = async () => {
      this.#containerdDaemon = await this.#daemon(["containerd", "--config", config], env, ["ctr", "--address", socket, "version"]);
    };
    await this.#launchContainerd();
    return socket;
  }

  /** Docker with the image loaded and the runtime under test as its default one; or, where `shim` is true, with what containerd finds as runc's shim; or with
   * the shim of that name. */
  docker(shim: boolean | string = false): Promise<Engine> {
    const tested = typeof shim === "string" ? { runtimeType: shim } : { path: runtime };
    this.#docker ??= this.#startDocker(shim === true ? {} : { "default-runtime": "tested", runtimes: { tested } });
    return this.#docker;
  }

  async #startDocker(runtimes: object): Promise<Engine> {
    const containerd = await this.containerd();
    const config = join(this.folder, "daemon.json");
    writeFileSync(config, JSON.stringify({ ...runtimes, "storage-driver": "overlay2", experimental: true }));
    const socket = "/run/docker-test.sock";
    const command = ["docker", "--host", `unix://${socket}`];
    const daemon = ["dockerd", "--config-file", config, "--data-root", join(this.#data, "docker"), "--exec-root", "/run/docker-exec"];
    await this.#daemon(
      [...daemon, "--pidfile", "/run/docker-test.pid", "--host", `unix://${socket}`, "--containerd", containerd, "--bip", "172.31.99.1/24"],
      {},
      [...command, "version"],
    );
    const engine = new Engine(this, command, { DOCKER_CONFIG: join(this.folder, "docker-config") });
    await engine.ok("load", "--quiet", "--input", this.#archive);
    return engine;
  }

  /** Starts a daemon; waits until `question` is answered, since it tells of its readiness in no other way. */
  async #daemon(command: readonly string[], env: Readonly<Record<string, string>>, question: readonly string[]): Promise<Program> {
    const daemon = this.start(command, { env });
    this.#daemons.push(daemon);
    for (const end = Date.now() + daemonMs; (await this.start(question).ended(daemonMs)).status !== 0; await delay(100)) {
      if (!daemon.running || Date.now() > end) throw new Error(`${command[0]} does not answer: ${daemon.stderr?.text() ?? ""}`);
    }
    return daemon;
  }

  /** What a container must not leave behind, in the engines' namespaces and on the machine. */
  async traces(): Promise<{ readonly machine: ReturnType<typeof takeSnapshot>; readonly inside: readonly string[] }> {
    const links = await this.inside("ip", "-o", "link");
    const mounts = readFileSync(`/proc/${this.#holder.pid}/mountinfo`, "utf8").split("\n");
    const roots = runFolders.flatMap((root) => entries(this.outside(root)).map((id) => `${root}/${id}`));
    const inside = [
      ...[...links.matchAll(/^\d+: ([^:@]+)/gm)].map(([, name]) => `link ${name}`),
      ...mounts.filter(Boolean).map((line) => `mount ${line.split(" ")[4]}`),
      ...roots.filter((root) => !runFolders.includes(root)).map((root) => `file ${root}`),
    ];
    return { machine: takeSnapshot(), inside };
  }

  /** What is there now and was not before; the kernel and the engines give some things back a moment after the last container has ended. */
  async leaks(before: Awaited<ReturnType<Engines["traces"]>>): Promise<string[]> {
    for (const end = Date.now() + givenBackMs; ; await delay(50)) {
      const now = await this.traces();
      const leaks = [
        ...compareSnapshots(before.machine, now.machine).filter((line) => line.startsWith("+") && !isEngines(line)),
        ...now.inside.filter((line) => !before.inside.includes(line) && !isEngines(line)).map((line) => `+ ${line}`),
      ];
      if (leaks.length === 0 || Date.now() > end) return leaks;
    }
  }

  async close(): Promise<void> {
    for (const daemon of this.#daemons.toReversed()) {
      daemon.signal("SIGTERM");
      await daemon.ended(daemonMs);
    }
    for (const started of this.#programs) if (started.running) started.signal("SIGKILL");
    this.#holder.signal("SIGKILL");
    await this.#holder.ended();
    for (const folder of cgroupFolders()) if (!this.#hadCgroups.includes(folder)) removeCgroups(folder);
    rmSync(this.folder, { recursive: true, force: true });
  }
}

/** The CRI plugin's part of containerd's configuration. */
function criConfig(network: string, generation: Generation): string {
  const cri = 'plugins."io.containerd.grpc.v1.cri"';
  const runtimes = ["husk", "runc"].map((name) => `[${cri}.containerd.runtimes.${name}]\nruntime_type = "io.containerd.${name}.v2"\n`);
  // The pods of this one are made by the Sandbox API.
  const setting = generation === "newest" ? "sandboxer" : "sandbox_mode";
  if (generation !== "system")
    runtimes.push(`[${cri}.containerd.runtimes.husk-sandbox]\nruntime_type = "io.containerd.husk.v2"\n${setting} = "shim"\n`);
  return `[${cri}]\ndisable_apparmor = true\nrestrict_oom_score_adj = true\nsandbox_image = "docker.io/${pauseName}"
[${cri}.cni]\nbin_dir = "/usr/lib/cni"\nconf_dir = "${network}"\n${runtimes.join("")}`;
}

/** What the engines keep for all containers: bridges, their parents' cgroups, and the mounts of their own. */
function isEngines(line: string): boolean {
  const ours =
    /(link (docker0|cni-test|podman\d+|br-[0-9a-f]+)|mount \/run\/netns|mount \S+\/(docker|podman)(\/overlay2?)?|mount \/run\/docker\/netns\/default|mount \S+\/default)$/;
  return (
    ours.test(line) ||
    engineCgroups.some((name) => new RegExp(`cgroup \\S+/${name}(/conmon)?$`).test(line)) ||
    /\(.*(dockerd|containerd) /.test(line)
  );
}

/** Removes a cgroup and those below it, which must have no processes any more. */
function removeCgroups(folder: string): void {
  for (const entry of readdirSync(folder, { withFileTypes: true })) if (entry.isDirectory()) removeCgroups(join(folder, entry.name));
  rmdirSync(folder);
}

function cgroupFolders(): string[] {
  return entries("/sys/fs/cgroup").flatMap((hierarchy) =>
    engineCgroups.map((name) => join("/sys/fs/cgroup", hierarchy, name)).filter(existsSync),
  );
}

function entries(folder: string): string[] {
  return existsSync(folder) ? readdirSync(folder) : [];
}

/** Vitest's test, with the engines of its file, and a leak check after each. Another generation of them: `test.override("generation", "newer")`. */
export const test = base
  .extend("generation", { scope: "file" }, (): Generation => "system")
  .extend("engines", { scope: "file" }, async ({ generation }, { onCleanup }) => {
    const engines = await Engines.open(generation);
    onCleanup(() => engines.close());
    return engines;
  })
  .extend("leakCheck", { auto: true }, async ({ engines, task }, { onCleanup }) => {
    const before = await engines.traces();
    onCleanup(async () => {
      if (task.result?.state === "fail") return;
      const leaks = await engines.leaks(before);
      if (leaks.length > 0) throw new Error(`left behind:\n${leaks.join("\n")}`);
    });
    return true;
  });
