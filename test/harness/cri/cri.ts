/** Pods for tests, made as a kubelet makes them: containerd's CRI plugin behind a small client, with a bridge network. */
import { mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { join, resolve } from "node:path";
import { type Client, credentials, loadPackageDefinition } from "@grpc/grpc-js";
import { loadSync } from "@grpc/proto-loader";
import { test as base, type Engines, type Generation } from "../engines.ts";
import { isHusk } from "../runtime.ts";
import { warmEnvironment } from "../standing-shims.ts";

/** How long any call may take: a pod's machine starts in it. */
const callMs = 90_000;

/** What a pod shares between its containers, besides its network. */
export interface PodOptions {
  readonly sharedProcesses?: boolean;
  readonly hostNetwork?: boolean;
  readonly sysctls?: Readonly<Record<string, string>>;
  /** What its containers may have together, as a kubelet tells it. */
  readonly memoryBytes?: number;
  /** The runtime's name in containerd's configuration; the one under test. */
  readonly handler?: string;
}

export interface ContainerOptions {
  readonly capabilities?: readonly string[];
  readonly mounts?: readonly {
    readonly container_path: string;
    readonly host_path: string;
    readonly readonly?: boolean;
    readonly propagation?: number;
  }[];
  readonly memoryBytes?: number;
  /** Of each 100 ms, in microseconds. */
  readonly cpuQuota?: number;
  readonly cpuShares?: number;
  /** How often a container of this name was made before. */
  readonly attempt?: number;
}

type Message = Readonly<Record<string, unknown>>;

export class Cri {
  readonly #client: Client;
  readonly #logs: string;
  #pods = 0;

  constructor(socket: string, logs: string) {
    const definition = loadPackageDefinition(
      loadSync(join(import.meta.dirname, "cri.proto"), { keepCase: true, longs: Number, defaults: true }),
    );
    const { v1 } = definition["runtime"] as unknown as {
      v1: { RuntimeService: new (...args: ConstructorParameters<typeof Client>) => Client };
    };
    this.#client = new v1.RuntimeService(`unix:${socket}`, credentials.createInsecure());
    this.#logs = logs;
  }

  /** One call. Throws the engine's words. */
  call<T = Message>(method: string, request: Message): Promise<T> {
    const stub = this.#client as unknown as Record<
      string,
      (request: Message, options: object, done: (error: Error | null, answer: T) => void) => void
    >;
    return new Promise((done, fail) => {
      stub[method]?.(request, { deadline: Date.now() + callMs }, (error, answer) => (error === null ? done(answer) : fail(error)));
    });
  }

  /** Runs a pod. */
  async pod({
    sharedProcesses = false,
    hostNetwork = false,
    sysctls = {},
    memoryBytes = 0,
    handler = isHusk ? "husk" : "runc",
  }: PodOptions = {}): Promise<Pod> {
    const name = `pod${this.#pods++}`;
    const pid = sharedProcesses ? "POD" : "CONTAINER";
    const config = {
      metadata: { name, uid: `${name}-uid`, namespace: "default" },
      hostname: name,
      log_directory: join(this.#logs, name),
      dns_config: { servers: ["10.88.7.53"], searches: ["cluster.local", "example.org"], options: ["ndots:5"] },
      linux: {
        cgroup_parent: "/kubepods",
        security_context: { namespace_options: { pid, network: hostNetwork ? "NODE" : "POD" } },
        sysctls,
        ...(memoryBytes > 0 && { resources: { memory_limit_in_bytes: memoryBytes } }),
      },
    };
    const { pod_sandbox_id: id } = await this.call<{ pod_sandbox_id: string }>("RunPodSandbox", {
      config,
      runtime_handler: handler,
    });
    return new Pod(this, id, config, pid);
  }

  close(): void {
    this.#client.close();
  }
}

interface Status {
  readonly state: number;
  readonly exit_code: number;
  readonly reason: string;
}

export class Pod {
  readonly #cri: Cri;
  readonly id: string;
  readonly #config: { readonly log_directory: string } & Message;
  readonly #pid: string;

  constructor(cri: Cri, id: string, config: { readonly log_directory: string } & Message, pid: string) {
    this.#cri = cri;
    this.id = id;
    this.#config = config;
    this.#pid = pid;
  }

  /** Makes a container that runs a shell script, and answers its id. */
  async create(
    name: string,
    script: string,
    { capabilities = [], mounts = [], memoryBytes = 0, cpuQuota = 0, cpuShares = 0, attempt = 0 }: ContainerOptions = {},
  ): Promise<string> {
    const config = {
      metadata: { name, attempt },
      image: { image: "docker.io/local/busybox:1" },
      command: ["/bin/sh", "-c", script],
      mounts,
      log_path: `${name}.${attempt}.log`,
      linux: {
        resources: { memory_limit_in_bytes: memoryBytes, cpu_period: 100_000, cpu_quota: cpuQuota, cpu_shares: cpuShares },
        security_context: { capabilities: { add_capabilities: capabilities }, namespace_options: { pid: this.#pid } },
      },
    };
    const request = { pod_sandbox_id: this.id, config, sandbox_config: this.#config };
    return (await this.#cri.call<{ container_id: string }>("CreateContainer", request)).container_id;
  }

  /** Makes and starts one. */
  async run(name: string, script: string, options: ContainerOptions = {}): Promise<string> {
    const id = await this.create(name, script, options);
    await this.#cri.call("StartContainer", { container_id: id });
    return id;
  }

  /** Runs a script in a container; answers its status and both outputs. */
  async exec(id: string, script: string): Promise<{ status: number; stdout: string; stderr: string }> {
    const request = { container_id: id, cmd: ["/bin/sh", "-c", script], timeout: 60 };
    const {
      exit_code: status,
      stdout,
      stderr,
    } = await this.#cri.call<{ exit_code: number; stdout: Buffer; stderr: Buffer }>("ExecSync", request);
    return { status, stdout: String(stdout), stderr: String(stderr) };
  }

  async status(id: string): Promise<Status> {
    return (await this.#cri.call<{ status: Status }>("ContainerStatus", { container_id: id })).status;
  }

  /** The container's log, as a kubelet would show it: without times and stream names. */
  log(name: string, attempt = 0): string {
    const lines = readFileSync(join(this.#config.log_directory, `${name}.${attempt}.log`), "utf8").split("\n");
    return lines.map((line) => line.split(" ").slice(3).join(" ")).join("\n");
  }

  /** Stops and removes the pod with all that is in it. */
  async remove(): Promise<void> {
    await this.#cri.call("StopPodSandbox", { pod_sandbox_id: this.id });
    await this.#cri.call("RemovePodSandbox", { pod_sandbox_id: this.id });
  }
}

/** Starts containerd with its CRI plugin, the runtime under test and a bridge. `more`: further variables of its environment. */
async function open(engines: Engines, generation: Generation, more: Readonly<Record<string, string>>): Promise<Cri> {
  const network = join(engines.folder, "cni");
  mkdirSync(network);
  const bridge = {
    type: "bridge",
    bridge: "cni-test",
    isGateway: true,
    ipam: { type: "host-local", dataDir: "/run/cni-ipam", subnet: "10.88.7.0/24", routes: [{ dst: "0.0.0.0/0" }] },
  };
  writeFileSync(join(network, "10-bridge.conflist"), JSON.stringify({ cniVersion: "0.4.0", name: "bridge", plugins: [bridge] }));
  // What containerd 1.7 wants to have the Sandbox API, and husk to promise containerd 2 the newer Task API.
  const env = { ...more, ENABLE_CRI_SANDBOXES: "1", ...(generation === "newest" && { HUSK_SHIM_API: "3" }) };
  const socket = await engines.containerd(resolve(import.meta.dirname, "../../../bin"), network, env);
  for (const archive of engines.archives())
    await engines.inside("ctr", "--address", socket, "--namespace", "k8s.io", "image", "import", archive);
  return new Cri(engines.outside(socket), join(engines.folder, "logs"));
}

/** The engines' test, with CRI besides. With templates that are kept warm, and the test's own: `test.override("warm", true)`. */
export const test = base
  .extend("warm", { scope: "file" }, (): boolean => false)
  .extend("cri", { scope: "file" }, async ({ engines, generation, warm }, { onCleanup }) => {
    const cri = await open(engines, generation, warm ? warmEnvironment(engines) : {});
    onCleanup(() => cri.close());
    return cri;
  });
