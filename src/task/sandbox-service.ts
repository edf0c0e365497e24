/**
 * containerd's Sandbox API: a pod without a pause container, made by itself before its containers (containerd's runtime option sandboxer = "shim").
 * https://github.com/containerd/containerd/blob/main/api/runtime/sandbox/v1/sandbox.proto
 */
import { HuskError } from "../errors.ts";
import { Metrics } from "../gen/containerd/cgroups/v2/metrics.ts";
import type { CreateSandboxRequest, SandboxDefinition, SandboxStatusResponse } from "../gen/containerd/sandbox/v1/sandbox.ts";
import { isSystemdHost } from "../host/systemd.ts";
import { cgroupOf } from "../oci/cgroups-path.ts";
import { guestHostname } from "../sandbox/plan-vm.ts";
import { packAny } from "../ttrpc/any.ts";
import type { Handlers } from "../ttrpc/service.ts";
import { metricsOf } from "./metrics.ts";
import { PauseProcess } from "./pause-process.ts";
import type { Pod } from "./pod.ts";
import { podSpec } from "./pod-annotations.ts";
import { readPodSpec } from "./pod-bundle.ts";
import { podConfig, podDns } from "./pod-config.ts";
import { writePodFiles } from "./pod-files.ts";
import { type PodSpec, packPodSpec, podInfo, toldSpec } from "./pod-info.ts";
import { TaskStdio } from "./stdio.ts";
import { never, timestamp } from "./timestamp.ts";

interface PodSandbox {
  readonly process: PauseProcess;
  readonly createdAt: Date;
  /** Its network namespace; "" where it has none but the virtual machine's. */
  readonly netns: string;
  readonly spec: PodSpec;
}

const noNames = { stdin: "", stdout: "", stderr: "", terminal: false };

export class SandboxService {
  readonly #pod: Pod;
  readonly #onShutdown: () => Promise<void>;
  /** undefined while it is being made. */
  readonly #sandboxes = new Map<string, PodSandbox | undefined>();

  /** `onShutdown`: see `TaskServiceOptions`. */
  constructor(pod: Pod, onShutdown: () => Promise<void>) {
    this.#pod = pod;
    this.#onShutdown = onShutdown;
  }

  handlers(): Handlers<typeof SandboxDefinition> {
    return {
      createSandbox: (request) => this.#create(request),
      startSandbox: async ({ sandboxId }) => {
        const { process, createdAt, spec } = this.#sandbox(sandboxId);
        await process.start();
        return { pid: process.pid, createdAt: timestamp(createdAt), spec: packPodSpec(spec) };
      },
      platform: () => ({ platform: { os: "linux", architecture: "amd64" } }),
      stopSandbox: async ({ sandboxId }) => {
        const { process } = this.#sandbox(sandboxId);
        if (process.status !== "stopped") await process.kill(9, true);
        await this.#pod.leave(process);
      },
      waitSandbox: async ({ sandboxId }) => {
        const { status, at } = await this.#sandbox(sandboxId).process.exited;
        return { exitStatus: status, exitedAt: timestamp(at) };
      },
      sandboxStatus: async ({ sandboxId, verbose }) => ({
        ...this.#status(sandboxId),
        ...(verbose && { info: await podInfo(this.#sandbox(sandboxId)) }),
      }),
      pingSandbox: ({ sandboxId }) => {
        this.#sandbox(sandboxId);
      },
      shutdownSandbox: async ({ sandboxId }) => {
        const sandbox = this.#sandboxes.get(sandboxId);
        await sandbox?.process.release();
        if (sandbox !== undefined) await this.#pod.leave(sandbox.process);
        this.#sandboxes.delete(sandboxId);
        if (this.#sandboxes.size === 0) await this.#onShutdown();
      },
      sandboxMetrics: ({ sandboxId }) => {
        this.#sandbox(sandboxId);
        const data = packAny(Metrics, metricsOf(undefined));
        return { metrics: { timestamp: timestamp(new Date()), id: sandboxId, data } };
      },
    };
  }

  /** Whether a PID is that of a sandbox's stand-in. */
  ownsPid(pid: number): boolean {
    return [...this.#sandboxes.values()].some((sandbox) => sandbox?.process.pid === pid);
  }

  async #create({ sandboxId, bundlePath, netnsPath, annotations, options }: CreateSandboxRequest): Promise<void> {
    if (this.#sandboxes.has(sandboxId)) throw new HuskError("already-exists", `sandbox "${sandboxId}" already exists`);
    this.#sandboxes.set(sandboxId, undefined);
    const member = {};
    try {
      const spec = podSpec(await readPodSpec(bundlePath, podConfig(sandboxId, options), annotations));
      const named = { hostname: spec.hostname || guestHostname, dns: podDns(options) };
      this.#pod.files = await writePodFiles(this.#pod.filesFolder, named);
      const { hosted } = await this.#pod.join(member, {
        id: sandboxId,
        spec,
        netns: netnsPath === "" ? null : netnsPath,
        shown: [],
        disks: [],
        cgroup: cgroupOf(spec.linux?.cgroupsPath, sandboxId, undefined, isSystemdHost()),
      });
      const stdio = await TaskStdio.open(noNames, { namespace: "", id: sandboxId });
      const { cgroups } = hosted;
      const sysctl = spec.linux?.sysctl ?? {};
      const process = await PauseProcess.create({
        pod: this.#pod,
        hosted,
        rootfs: null,
        cgroups,
        names: noNames,
        stdio,
        title: spec.process.args,
        sysctl,
      });
      this.#pod.replace(member, process);
      this.#sandboxes.set(sandboxId, { process, createdAt: new Date(), netns: netnsPath, spec: toldSpec(spec, netnsPath) });
    } catch (error) {
      this.#sandboxes.delete(sandboxId);
      await this.#pod.leave(member);
      throw error;
    }
  }

  #status(sandboxId: string): Partial<SandboxStatusResponse> {
    const { process, createdAt } = this.#sandbox(sandboxId);
    return {
      sandboxId,
      pid: process.pid,
      state: process.status === "running" ? "SANDBOX_READY" : "SANDBOX_NOTREADY",
      createdAt: timestamp(createdAt),
      exitedAt: process.exit === undefined ? never : timestamp(process.exit.at),
    };
  }

  #sandbox(id: string): PodSandbox {
    const sandbox = this.#sandboxes.get(id);
    if (sandbox === undefined) throw new HuskError("not-found", `sandbox "${id}" does not exist`);
    return sandbox;
  }
}
