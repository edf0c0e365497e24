/** The server: one sandbox's Task API on the socket that the front bound, until containerd says that it is over. */
import { readFileSync, rmSync } from "node:fs";
import { createServer } from "node:net";
import { type Config, loadConfig } from "../config/config.ts";
import { explain } from "../errors.ts";
import { SandboxDefinition } from "../gen/containerd/sandbox/v1/sandbox.ts";
import { TaskDefinition as TaskV2 } from "../gen/containerd/task/v2/task.ts";
import { TaskDefinition as TaskV3 } from "../gen/containerd/task/v3/task.ts";
import { findHierarchies } from "../host/cgroups.ts";
import { helperPath } from "../host/installation.ts";
import { EventPublisher } from "../task/events.ts";
import { Pod } from "../task/pod.ts";
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

/** How long after the first start of a process the server begins to be frugal with memory, in milliseconds: nothing is left to be loaded then. */
const settleMs = 1_000;

/** What the front has told this process's C library (guest-agent/helper/src/shim/daemon.rs), and nobody else's: QEMU and log drivers inherit the environment. */
const ownVariables = ["MALLOC_ARENA_MAX", "MALLOC_TRIM_THRESHOLD_"];

export async function serve(call: ShimCall): Promise<void> {
  for (const name of ownVariables) delete process.env[name];
  const log = openShimLog(call);
  const { config, problem } = await readConfig();
  const folder = shimFolder(call.socket);
  const pod = await Pod.open({
    folder,
    address: `unix://${call.socket.replace(/^unix:\/\//, "")}`,
    namespace: call.namespace,
    config,
    hierarchies: findHierarchies(readFileSync("/proc/self/mountinfo", "utf8")),
    helper: helperPath(),
    log,
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
  const settle = async (): Promise<void> => (await import("./frugal.ts")).beFrugal();
  const onStarted = (): void => {
    settling ??= setTimeout(() => void settle(), settleMs).unref();
  };
  const sandboxes = new SandboxService(pod, onShutdown);
  const isSandboxPid = (pid: number): boolean => sandboxes.ownsPid(pid);
  const tasks = new TaskService({ namespace: call.namespace, pod, events, isSandboxPid, onStarted, onShutdown });
  const refuse = (): never => {
    throw problem;
  };
  const taskCalls = { ...tasks.handlers(), ...(problem !== undefined && { create: refuse }) };
  server.register(TaskV2, taskCalls);
  server.register<typeof TaskV3>(TaskV3, taskCalls);
  server.register(SandboxDefinition, { ...sandboxes.handlers(), ...(problem !== undefined && { createSandbox: refuse }) });
  const listener = createServer();
  server.serve(listener);
  listener.listen({ fd: socketDescriptor });
  process.on("SIGTERM", () => {}); // as containerd's own shim: its end is Shutdown, or SIGKILL
  process.on("SIGINT", () => {});

  await over.promise;
  await events.close();
  await server.close(graceMs);
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
