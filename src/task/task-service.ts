/**
 * containerd's Task API, versions 2 and 3, in front of a sandbox. Calls are carried out as they come: a State is answered while a Create still boots.
 * https://github.com/containerd/containerd/blob/main/api/runtime/task/v3/shim.proto
 */
import { existsSync } from "node:fs";
import { explain, GrpcCode, grpcCode, HuskError } from "../errors.ts";
import { Metrics } from "../gen/containerd/cgroups/v2/metrics.ts";
import {
  TaskCheckpointed,
  TaskCreate,
  TaskDelete,
  TaskExecAdded,
  TaskExecStarted,
  TaskExit,
  TaskOOM,
  TaskPaused,
  TaskResumed,
  TaskStart,
} from "../gen/containerd/events/task.ts";
import { CheckpointOptions, ProcessDetails } from "../gen/containerd/runc/v1/options.ts";
import type {
  CheckpointTaskRequest,
  CreateTaskRequest,
  DeleteRequest,
  ExecProcessRequest,
  ResizePtyRequest,
  StateResponse,
  TaskDefinition,
} from "../gen/containerd/task/v2/task.ts";
import { Status } from "../gen/containerd/types/task.ts";
import type { Any } from "../gen/google/protobuf/any.ts";
import type { GuestNamespace } from "../oci/support.ts";
import { parseProcess, parseResources } from "../oci/validate.ts";
import { Teller } from "../sandbox/telling.ts";
import { Trace } from "../sandbox/trace.ts";
import { packAny } from "../ttrpc/any.ts";
import type { CallContext, Handlers } from "../ttrpc/service.ts";
import { TtrpcError } from "../ttrpc/ttrpc-error.ts";
import { judgeOptions } from "./create-options.ts";
import type { EventPublisher } from "./events.ts";
import { metricsOf } from "./metrics.ts";
import type { Pod } from "./pod.ts";
import { Task } from "./task.ts";
import type { TaskProcess } from "./task-process.ts";
import { never, timestamp } from "./timestamp.ts";

export interface TaskServiceOptions {
  readonly namespace: string;
  readonly pod: Pod;
  readonly events: EventPublisher;
  /** Whether a PID is that of a pod made by the Sandbox API. */
  readonly isSandboxPid: (pid: number) => boolean;
  /** Called when a process has been started. */
  readonly onStarted: () => void;
  /** Called when containerd has no more use for the shim; resolves once it has given back all that it had. Never rejects. */
  readonly onShutdown: () => Promise<void>;
}

/** The largest process or resources document. */
const maxDocumentBytes = 4 * 1024 * 1024;

export class TaskService {
  readonly #options: TaskServiceOptions;
  /** A task is here from the beginning of its Create on; undefined while that lasts. */
  readonly #tasks = new Map<string, Task | undefined>();
  /** Whether containerd has said that it has no use for the shim; it may have done so while a Create went on that nobody waits for any more. */
  #isUnwanted = false;
  /** Starts that go on: a process's end is told after its start. */
  readonly #starting = new Map<TaskProcess, Promise<void>>();

  constructor(options: TaskServiceOptions) {
    this.#options = options;
  }

  /** The Task service's methods, those of version 2 and of version 3, which are the same. */
  handlers(): Handlers<typeof TaskDefinition> {
    return {
      create: (request, { metadata }) => this.#tell("husk create", request.id, metadata, (trace) => this.#create(request, trace)),
      start: ({ id, execId }, { metadata }) =>
        this.#tell(execId === "" ? "husk start" : "husk exec", id, metadata, async (trace) => {
          const started = await this.#start(id, execId);
          trace.mark("program runs");
          return started;
        }),
      state: ({ id, execId }) => this.#state(id, execId),
      delete: (request) => this.#delete(request),
      pids: ({ id }) => ({ processes: this.#pids(this.#task(id)) }),
      pause: async ({ id }) => {
        await this.#task(id).pause();
        this.#publish("/tasks/paused", packAny(TaskPaused, { containerId: id }));
      },
      resume: async ({ id }) => {
        await this.#task(id).resume();
        this.#publish("/tasks/resumed", packAny(TaskResumed, { containerId: id }));
      },
      checkpoint: (request) => this.#checkpoint(request),
      kill: ({ id, execId, signal, all }) => this.#task(id).process(execId).kill(signal, all),
      exec: (request) => this.#exec(request),
      resizePty: (request) => this.#resize(request),
      closeIO: ({ id, execId, stdin }) => {
        if (stdin) this.#task(id).process(execId).closeStdin();
      },
      update: ({ id, resources }) => this.#task(id).update(parseResources(document(resources), "the resources").value),
      wait: ({ id, execId }) => this.#wait(id, execId),
      stats: async ({ id }) => ({ stats: packAny(Metrics, metricsOf(await this.#task(id).stats())) }),
      connect: ({ id }) => ({ shimPid: process.pid, taskPid: this.#tasks.get(id)?.init.pid ?? 0, version: "3" }),
      shutdown: async ({ now }) => {
        this.#isUnwanted = true;
        if (this.#tasks.size === 0 || now) await this.#options.onShutdown();
      },
    };
  }

  /** Whose namespaces those of a stand-in are, where it is one of ours. */
  #namespacesOf(pid: number): GuestNamespace | undefined {
    const task = [...this.#tasks.values()].find((one) => one !== undefined && one.init.pid === pid);
    return task?.namespaces ?? (this.#options.isSandboxPid(pid) ? "sandbox" : undefined);
  }

  /** Does what containerd asks for, and tells OpenTelemetry of it, where that is configured; containerd says of what it is a part. */
  async #tell<T>(name: string, container: string, metadata: CallContext["metadata"], work: (trace: Trace) => Promise<T>): Promise<T> {
    const { namespace, pod } = this.#options;
    const trace = new Trace(Date.now());
    const [traceparent, tracestate] = [metadata.get("traceparent")?.[0], metadata.get("tracestate")?.[0]];
    const attributes = { "containerd.namespace": namespace };
    const teller = new Teller({
      trace,
      container,
      attributes,
      parent: { traceparent, tracestate },
      warn: (message) => pod.log.warn(message),
    });
    return await teller.around(name, () => work(trace));
  }

  async #create(request: CreateTaskRequest, trace: Trace): Promise<{ pid: number }> {
    const { id, bundle, rootfs, terminal, stdin, stdout, stderr, checkpoint, options } = request;
    if (this.#tasks.has(id)) throw new HuskError("already-exists", `container "${id}" already exists`);
    this.#tasks.set(id, undefined);
    let task: Task;
    try {
      const { systemdCgroup, notes, warnings } = await judgeOptions(options);
      for (const note of notes) this.#options.pod.log.info(note);
      for (const warning of warnings) this.#options.pod.log.warn(`container "${id}": ${warning}`);
      task = await Task.create(this.#options.pod, {
        namespace: this.#options.namespace,
        id,
        bundle,
        rootfs,
        names: { terminal, stdin, stdout, stderr },
        checkpoint,
        mark: (phase) => trace.mark(phase),
        systemdCgroup,
        namespacesOf: (pid) => this.#namespacesOf(pid),
        onMemoryKill: () => this.#publish("/tasks/oom", packAny(TaskOOM, { containerId: id })),
      });
    } catch (error) {
      this.#tasks.delete(id);
      this.#endIfUnwanted();
      throw forEngines(error);
    }
    this.#tasks.set(id, task);
    const io = { terminal, stdin, stdout, stderr };
    this.#publish("/tasks/create", packAny(TaskCreate, { containerId: id, bundle, rootfs, io, checkpoint, pid: task.init.pid }));
    this.#tellExit(task, task.init);
    if (this.#isUnwanted && !existsSync(bundle)) await this.#forsake(id);
    return { pid: task.init.pid };
  }

  /** Gives back a task whose bundle containerd has taken away while it was made: its client is gone. */
  async #forsake(id: string): Promise<void> {
    const { log } = this.#options.pod;
    log.warn(`container "${id}" is taken back: its bundle is gone, so nobody waits for it any more`);
    await this.#delete({ id, execId: "" }).catch((error: unknown) => log.warn(`container "${id}": ${explain(error)}`));
    this.#tasks.delete(id);
    this.#endIfUnwanted();
  }

  #endIfUnwanted(): void {
    if (this.#isUnwanted && this.#tasks.size === 0) void this.#options.onShutdown();
  }

  async #start(id: string, execId: string): Promise<{ pid: number }> {
    const task = this.#task(id);
    const process = task.process(execId);
    const told = Promise.withResolvers<void>();
    this.#starting.set(process, told.promise);
    try {
      await task.start(execId);
      const { pid } = process;
      if (execId === "") this.#publish("/tasks/start", packAny(TaskStart, { containerId: id, pid }));
      else this.#publish("/tasks/exec-started", packAny(TaskExecStarted, { containerId: id, execId, pid }));
      this.#options.onStarted();
      return { pid };
    } catch (error) {
      throw forEngines(error);
    } finally {
      told.resolve();
      this.#starting.delete(process);
    }
  }

  async #exec({ id, execId, terminal, stdin, stdout, stderr, spec }: ExecProcessRequest): Promise<void> {
    const task = this.#task(id);
    if (!/^[\w+.-]{1,128}$/.test(execId))
      throw new HuskError("invalid-argument", `exec id ${JSON.stringify(execId.slice(0, 128))} is no plain name`);
    await task.exec(execId, parseProcess(document(spec), "the process").value, { terminal, stdin, stdout, stderr });
    this.#publish("/tasks/exec-added", packAny(TaskExecAdded, { containerId: id, execId }));
    this.#tellExit(task, task.process(execId));
  }

  async #checkpoint({ id, path, options }: CheckpointTaskRequest): Promise<void> {
    if (!path.startsWith("/")) throw new HuskError("invalid-argument", "a checkpoint needs the absolute path of a folder");
    // Whoever asks another runtime than runc for one cannot say that the container shall end.
    const exit = options?.typeUrl.endsWith(CheckpointOptions.$type) === true && CheckpointOptions.decode(options.value).exit;
    try {
      await this.#task(id).checkpoint(path, exit);
    } catch (error) {
      throw forEngines(error);
    }
    this.#publish("/tasks/checkpointed", packAny(TaskCheckpointed, { containerId: id, checkpoint: path }));
  }

  #state(id: string, execId: string): Partial<StateResponse> {
    const task = this.#task(id);
    const process = task.process(execId);
    const { terminal, stdin, stdout, stderr } = process.names;
    return {
      id: execId === "" ? id : execId,
      bundle: task.bundle.path,
      pid: process.pid,
      status: statusOf(process, task),
      stdin,
      stdout,
      stderr,
      terminal,
      exitStatus: process.exit?.status ?? 0,
      exitedAt: process.exit === undefined ? never : timestamp(process.exit.at),
      execId,
    };
  }

  async #delete({ id, execId }: DeleteRequest): Promise<{ pid: number; exitStatus: number; exitedAt: typeof never }> {
    const task = this.#task(id);
    const process = task.process(execId);
    if (execId === "") {
      await task.delete();
      this.#tasks.delete(id);
    } else {
      await task.deleteExec(execId);
    }
    const { pid } = process;
    const exitStatus = process.exit?.status ?? 0;
    const exitedAt = process.exit === undefined ? never : timestamp(process.exit.at);
    if (execId === "") this.#publish("/tasks/delete", packAny(TaskDelete, { containerId: id, pid, exitStatus, exitedAt, id: "" }));
    this.#endIfUnwanted(); // of a pod whose sandbox went first containerd says so once, while containers are there still
    return { pid, exitStatus, exitedAt };
  }

  #pids(task: Task): { pid: number; info?: Any }[] {
    const execs = task.execs.filter(({ status }) => status === "running");
    const init = task.init.status === "stopped" ? [] : [{ pid: task.init.pid }];
    return [...init, ...execs.map(({ pid, id }) => ({ pid, info: packAny(ProcessDetails, { execId: id }) }))];
  }

  async #resize({ id, execId, width, height }: ResizePtyRequest): Promise<void> {
    const process = this.#task(id).process(execId);
    // Without a terminal there is no size, which clients do not know beforehand: with runc it is no error either.
    if (process.names.terminal) await process.resize({ rows: height, columns: width });
  }

  async #wait(id: string, execId: string): Promise<{ exitStatus: number; exitedAt: typeof never }> {
    const { status, at } = await this.#task(id).process(execId).exited;
    return { exitStatus: status, exitedAt: timestamp(at) };
  }

  #task(id: string): Task {
    const task = this.#tasks.get(id);
    if (task === undefined) throw new HuskError("not-found", `container "${id}" not created`);
    return task;
  }

  /** Tells of a process's end, once, and after its start where it was started. */
  #tellExit(task: Task, process: TaskProcess): void {
    process.exited.then(
      async ({ status, at }) => {
        await this.#starting.get(process);
        const id = process.id === "" ? task.id : process.id;
        const exit = { containerId: task.id, id, pid: process.pid, exitStatus: status, exitedAt: timestamp(at) };
        this.#publish("/tasks/exit", packAny(TaskExit, exit));
      },
      () => {}, // it was deleted before it ran: there is no end to tell of
    );
  }

  #publish(topic: string, event: Any): void {
    this.#options.events.publish(topic, event);
  }
}

/** An error of Create or Start in the words and classes that engines draw conclusions from. */
function forEngines(error: unknown): unknown {
  // "Not implemented" would have containerd 2 try again with the API's older version.
  if (grpcCode(error) === GrpcCode.unimplemented) return new TtrpcError(GrpcCode.invalidArgument, (error as Error).message);
  // Docker's exit status is 126 where it finds these words of runc's.
  if (!(error instanceof HuskError) || error.code !== "program-not-executable" || error.message.includes("permission denied")) return error;
  return new HuskError(error.code, `${error.message}: permission denied`, { cause: error.cause });
}

function statusOf(process: TaskProcess, task: Task): Status {
  switch (process.status) {
    case "created":
      return Status.CREATED;
    case "running":
      return task.isPaused ? Status.PAUSED : Status.RUNNING;
    case "stopped":
      return Status.STOPPED;
    default:
      return process.status satisfies never;
  }
}

/** The JSON text in a request's Any. */
function document(any: Any | undefined): string {
  if (any === undefined) throw new HuskError("invalid-argument", "the request lacks its document");
  if (any.value.length > maxDocumentBytes) throw new HuskError("invalid-argument", `a document of more than ${maxDocumentBytes} bytes`);
  try {
    return new TextDecoder("utf-8", { fatal: true }).decode(any.value);
  } catch (cause) {
    throw new HuskError("invalid-argument", "the document is not UTF-8", { cause });
  }
}
