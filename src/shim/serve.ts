/** The server: one sandbox's Task API on the socket that the front bound, until containerd says that it is over. */
import { readFileSync, rmSync } from "node:fs";
import { createServer, type Server as Listener } from "node:net";
import { type Config, loadConfig } from "../config/config.ts";
import { explain } from "../errors.ts";
import { SandboxDefinition } from "../gen/containerd/sandbox/v1/sandbox.ts";
import { TaskDefinition as TaskV2 } from "../gen/containerd/task/v2/task.ts";
import { TaskDefinition as TaskV3 } from "../gen/containerd/task/v3/task.ts";
import { findHierarchies } from "../host/cgroups.ts";
import { beFrugal, settleMs } from "../host/frugal.ts";
import { helperPath } from "../host/installation.ts";
import { EventPublisher } from "../task/events.ts";
import type { Logger } from "../task/logger.ts";
import { Pod, type WaitingSandbox } from "../task/pod.ts";
import { SandboxService } from "../task/sandbox-service.ts";
import { TaskService } from "../task/task-service.ts";
import { TtrpcServer } from "../ttrpc/server.ts";
import type { ShimCall } from "./arguments.ts";
import { openShimLog } from "./log.ts";
import { shimFolder, socketPath } from "./shim-folder.ts";

/** Where the front leaves the listening socket. */
const socketDescriptor = 3;

/** How long calls in flight, and then the clients to hang up, may take at the end, in milliseconds. */
const graceMs = 1_000;

/** What the front has told this process's C library (guest-agent/helper/src/shim/daemon.rs), and nobody else's: QEMU and log drivers inherit the environment. */
export const ownVariables = ["MALLOC_ARENA_MAX", "MALLOC_TRIM_THRESHOLD_"];

/** Serves on the socket that the front bound. */
export async function serve(call: ShimCall): Promise<void> {
  for (const name of ownVariables) delete process.env[name];
  const server = await openServer(call, await readConfig());
  server.listener.listen({ fd: socketDescriptor });
  await server.over;
}

export interface ServerOptions {
  readonly config: Config;
  /** What is wrong with the configuration. */
  readonly problem?: unknown;
  /** PodOptions.waiting. */
  readonly waiting?: WaitingSandbox;
  /** Called when a process has been started. */
  readonly onStarted?: () => void;
}

/** A server that does not listen yet. */
export interface ShimServer {
  /** To be told where. */
  readonly listener: Listener;
  /** Resolves once containerd has said that it is over, and everything has been given back. */
  readonly over: Promise<void>;
  /** Ends it, as containerd does. */
  readonly end: () => Promise<void>;
}

/** Makes a server, with all that it needs on the host. */
export async function openServer(call: ShimCall, { config, problem, waiting, onStarted }: ServerOptions): Promise<ShimServer> {
  const log = openShimLog(call);
  const folder = shimFolder(call.socket);
  const pod = await Pod.open({
    folder,
    address: `unix://${call.socket.replace(/^unix:\/\//, "")}`,
    namespace: call.namespace,
    config,
    hierarchies: findHierarchies(readFileSync("/proc/self/mountinfo", "utf8")),
    helper: helperPath(),
    log,
    ...(waiting === undefined ? {} : { waiting }),
  });
  const events = new EventPublisher(process.env["TTRPC_ADDRESS"] ?? "", call.namespace, log);
  const server = new TtrpcServer({ onFailure: (error, what) => log.info(`${what}: ${explain(error)}`) });
  const over = Promise.withResolvers<void>();
  const end = async (): Promise<void> => {
    rmSync(socketPath(call.socket), { force: true });
    try {
      await pod.close();
      rmSync(folder, { recursive: true, force: true });
    } catch (error) {
      log.warn(explain(error)); // what it left is in the folder, and `delete` gives it back
    }
    over.resolve();
  };
  // Before containerd is answered, whose `delete` comes at once: where there is no folder, that has nothing to do.
  let ending: Promise<void> | undefined;
  const onShutdown = (): Promise<void> => (ending ??= end());
  // A task that ends at once is not held up by it.
  let settling: NodeJS.Timeout | undefined;
  let wanting: Promise<void> | undefined;
  const want = (): Promise<void> => (wanting ??= orderNext(pod, call, config, log));
  const settle = async (): Promise<void> => {
    await want();
    beFrugal();
  };
  const onStart = (): void => {
    onStarted?.();
    settling ??= setTimeout(() => void settle(), settleMs).unref();
  };
  const sandboxes = new SandboxService(pod, onShutdown);
  const isSandboxPid = (pid: number): boolean => sandboxes.ownsPid(pid);
  const tasks = new TaskService({ namespace: call.namespace, pod, events, isSandboxPid, onStarted: onStart, onShutdown });
  const refuse = (): never => {
    throw problem;
  };
  const taskCalls = { ...tasks.handlers(), ...(problem !== undefined && { create: refuse }) };
  // Each container of a pod has a client that says it.
  server.register(TaskV2, taskCalls, ["shutdown"]);
  server.register<typeof TaskV3>(TaskV3, taskCalls, ["shutdown"]);
  server.register(SandboxDefinition, { ...sandboxes.handlers(), ...(problem !== undefined && { createSandbox: refuse }) });
  const listener = createServer();
  server.serve(listener);
  process.on("SIGTERM", () => {}); // as containerd's own shim: its end is Shutdown, or SIGKILL
  process.on("SIGINT", () => {});

  const close = async (): Promise<void> => {
    await over.promise;
    if (settling !== undefined) await want();
    await events.close();
    await server.close(graceMs);
  };
  return { listener, over: close(), end: onShutdown };
}

/** Has a server stand by for the next task that is like the first one, where it could be. */
async function orderNext(pod: Pod, { namespace }: ShimCall, config: Config, log: Logger): Promise<void> {
  try {
    const first = await pod.first();
    if (first?.sandbox.zygote === undefined) return;
    await (await import("./want-standby.ts")).wantStandby(first.spec, first.sandbox, config, namespace);
  } catch (error) {
    log.info(`no shim is asked to stand by: ${explain(error)}`);
  }
}

/** A configuration that cannot be used is told to whoever wants something made: of a shim that ends, nobody would hear why. */
async function readConfig(): Promise<{ readonly config: Config; readonly problem?: unknown }> {
  try {
    return await loadConfig({ env: process.env, flags: {} });
  } catch (problem) {
    const nothing = { readText: () => undefined, list: () => [] };
    return { ...(await loadConfig({ env: {}, flags: {}, files: nothing })), problem };
  }
}
