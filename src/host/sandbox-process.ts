/**
 * The client of `husk-helper sandbox`: one process of ours on the host, behind it the PID, mount and network namespaces in which QEMU and
 * virtiofsd live. When this object's process dies, or the supervisor does, the kernel ends all of them.
 */
import { type ChildProcess, spawn } from "node:child_process";
import { constants } from "node:os";
import type { Duplex, Readable } from "node:stream";
import { HuskError } from "../errors.ts";
import { withDeadline } from "./deadline.ts";
import { type Deferred, deferred } from "./deferred.ts";
import { readJsonLines, writeJsonLine } from "./lines.ts";
import type { SandboxMount, SandboxPlan, SandboxProgram } from "./sandbox-plan.ts";
import { Tail } from "./tail.ts";

/** How a program of the sandbox ended. */
export interface ProgramEnd {
  readonly name: string;
  readonly code?: number;
  readonly signal?: number;
}

/** Descriptors from this number on are the caller's; below: standard streams and the control socket. */
export const firstExtraDescriptor = 4;

/** How long a helper may take to end its sandbox, in milliseconds, before it is killed with it. */
const obedienceMs = 5000;

export class SandboxProcess {
  /** The helper's PID on the host; unique among live sandboxes, so identities (user, vsock CID) are derived from it. */
  readonly pid: number;
  /** Our ends of the descriptors that the plan's programs were given, from `firstExtraDescriptor` on. */
  readonly channels: readonly Duplex[];
  /** What the programs wrote on their standard error. */
  readonly stderr = new Tail(16 * 1024);
  /** Settles when every process of the sandbox is gone, but for a helper that sees to what remains; never rejects. */
  readonly ended: Promise<void>;

  readonly #child: ChildProcess;
  readonly #control: Duplex;
  readonly #initPid = deferred<number>();
  readonly #fatal = deferred<never>();
  readonly #programEnds = new Map<string, Deferred<ProgramEnd>>();
  readonly #programStarts = new Map<string, Deferred<number>>();
  /** The host's PIDs of the programs that run, by their names. */
  readonly #programPids = new Map<string, number>();
  readonly #requests = new Map<number, Deferred<void>>();
  /** Resolves to PID 1's status where the helper outlives it. */
  readonly #outlived = deferred<number>();
  /** Whether the helper would do something after our death. */
  #hasRemains = false;
  #nextRequest = 1;

  /**
   * Starts the helper, without a plan yet: that needs the PID.
   * `channels`: how many socket pairs the plan's programs need. Throws `host` where the helper cannot be started.
   */
  static start(helper: string, channels: number): SandboxProcess {
    const child = spawn(helper, ["sandbox"], {
      stdio: ["ignore", "ignore", "pipe", "pipe", ...Array.from({ length: channels }, () => "pipe" as const)],
      env: { PATH: process.env["PATH"] ?? "/usr/sbin:/usr/bin:/sbin:/bin", LANG: "C.UTF-8" },
    });
    return new SandboxProcess(helper, child);
  }

  private constructor(helper: string, child: ChildProcess) {
    this.#child = child;
    this.pid = child.pid ?? 0;
    this.#control = child.stdio[3] as Duplex;
    this.channels = child.stdio.slice(firstExtraDescriptor) as Duplex[];
    const stderr = child.stdio[2] as Readable;
    this.ended = new Promise((resolve) => {
      child.once("error", (cause) => {
        this.#fail(new HuskError("host", `cannot start ${helper}`, { cause, hint: "run `npm run setup`" }));
        resolve();
      });
      const exited = new Promise<string>((done) => child.once("exit", (code, signal) => done(describeEnd(code, signal))));
      const silent = new Promise((done) => stderr.once("close", done));
      const over = Promise.race([exited, this.#outlived.promise.then((status) => describeEnd(status, null))]);
      void Promise.all([over, silent]).then(([how]) => {
        this.#fail(new HuskError("vmm", this.#withStderr(how)));
        resolve();
      });
    });
    stderr.on("data", (chunk: Buffer) => this.stderr.add(chunk));
    readJsonLines(
      this.#control,
      "the sandbox's helper",
      (message) => this.#onMessage(message),
      (error) => {
        // That the stream has failed is a sign of the helper's end, which tells how: one that is killed with words of ours unread resets it.
        if (error instanceof HuskError) this.#fail(error);
      },
    );
    for (const channel of this.channels) channel.on("error", () => {}); // its reader learns of the end by `close`
  }

  /** Fills memory of so many bytes with what is in `ram`, which has that sum, for the plan to come. Throws `host`. */
  fill(ram: string, bytes: number, sum: string): Promise<void> {
    return this.#request({ op: "fill", ram, bytes, sum });
  }

  /** Sends the plan. Its failure shows in `initPid` and in every program's end. */
  launch(plan: SandboxPlan): void {
    for (const { name } of plan.processes) {
      this.#programEnds.set(name, this.#settling());
      this.#programStarts.set(name, this.#settling());
    }
    this.#hasRemains = plan.remains.length > 0;
    writeJsonLine(this.#control, plan);
  }

  /** The host's PID of the sandbox's PID 1, whose namespaces under /proc are the sandbox's. Rejects where the launch failed. */
  get initPid(): Promise<number> {
    return this.#initPid.promise;
  }

  /** Rejects when the sandbox can no longer work (its helper failed or ended); never resolves. */
  get failed(): Promise<never> {
    return this.#fatal.promise;
  }

  /** How the named program ended. Rejects where it could not be started. */
  programEnd(name: string): Promise<ProgramEnd> {
    const end = this.#programEnds.get(name);
    return end === undefined ? Promise.reject(new HuskError("internal", `the sandbox has no program ${name}`)) : end.promise;
  }

  /** The host's PID of a program of the plan, once it runs. Rejects where it could not be started. */
  programStart(name: string): Promise<number> {
    const start = this.#programStarts.get(name);
    return start === undefined ? Promise.reject(new HuskError("internal", `the plan has no program ${name}`)) : start.promise;
  }

  /** The host's PID of the named program; undefined where it does not run yet. */
  programPid(name: string): number | undefined {
    return this.#programPids.get(name);
  }

  /** Shows a further host path below the shared folder. */
  mount(mount: SandboxMount): Promise<void> {
    return this.#request({ op: "mount", ...mount });
  }

  unmount(target: string): Promise<void> {
    return this.#request({ op: "unmount", target });
  }

  /** Gives QEMU a file or block device of the host, as its set of descriptors number `set`. */
  give(set: number, path: string, write: boolean): Promise<void> {
    return this.#request({ op: "give", set, path, write });
  }

  /** Makes a tap for QEMU in the sandbox's network namespace. Throws `host`. */
  makeTap(name: string): Promise<void> {
    return this.#request({ op: "tap", name });
  }

  /** Changes the plan's `remains`. */
  setRemains(program: readonly string[]): Promise<void> {
    this.#hasRemains = program.length > 0;
    return this.#request({ op: "remains", program });
  }

  /** The host's PIDs of PID 1 and of the programs that run. */
  async pids(): Promise<number[]> {
    return [await this.initPid, ...this.#programPids.values()];
  }

  /** Starts a further program. */
  spawn(program: SandboxProgram): Promise<void> {
    this.#programEnds.set(program.name, this.#settling());
    return this.#request({ op: "spawn", process: program });
  }

  /** Sends a signal to the named program. */
  signal(name: string, signal: number): Promise<void> {
    return this.#request({ op: "signal", name, signal });
  }

  /** Nothing remains any more, and a helper that outlives the sandbox ends. Not waited for: where it cannot hear this, it ends with us. */
  nothingRemains(): void {
    if (this.#hasRemains) this.setRemains([]).catch(() => {});
  }

  /** Ends everything in the sandbox, now. The helper stays while something remains, for that this process may die before it has seen to it. */
  async kill(): Promise<void> {
    if (this.#hasRemains) {
      this.#child.kill("SIGCONT"); // one that somebody has stopped does not hear
      this.#request({ op: "end" }).catch(() => {}); // its end is as good
      const isOver = await withDeadline(this.ended, obedienceMs, "the sandbox's helper").then(
        () => true,
        () => false,
      );
      if (isOver) return;
    }
    // In this order: the helper takes the end of the control socket for the supervisor's death.
    this.#child.kill("SIGKILL");
    this.#control.destroy();
    await this.ended;
  }

  /** What rejects where the sandbox fails first. */
  #settling<T>(): Deferred<T> {
    const settling = deferred<T>();
    settling.promise.catch(() => {}); // whoever awaits it gets it
    this.#fatal.promise.catch(settling.reject);
    return settling;
  }

  #request(request: object): Promise<void> {
    const id = this.#nextRequest++;
    const answer = deferred<void>();
    this.#requests.set(id, answer);
    this.#fatal.promise.catch(answer.reject);
    writeJsonLine(this.#control, { id, ...request });
    return answer.promise;
  }

  #onMessage(message: Readonly<Record<string, unknown>>): void {
    const { event, id } = message;
    if (typeof id === "number") {
      const answer = this.#requests.get(id);
      this.#requests.delete(id);
      if (message["ok"] === true) answer?.resolve();
      else answer?.reject(new HuskError("host", String(message["error"])));
    } else if (event === "launched" && typeof message["pid"] === "number") {
      this.#initPid.resolve(message["pid"]);
    } else if (event === "started" && typeof message["name"] === "string" && typeof message["pid"] === "number") {
      this.#programPids.set(message["name"], message["pid"]);
      this.#programStarts.get(message["name"])?.resolve(message["pid"]);
    } else if (event === "exit" && typeof message["name"] === "string") {
      const { name, code, signal } = message;
      this.#programPids.delete(name);
      this.#programEnds.get(name)?.resolve({
        name,
        ...(typeof code === "number" ? { code } : {}),
        ...(typeof signal === "number" ? { signal } : {}),
      });
    } else if (event === "ended" && typeof message["status"] === "number") {
      this.#outlived.resolve(message["status"]);
    } else if (event === "fatal") {
      this.#fail(new HuskError("host", String(message["message"])));
    }
  }

  #fail(error: Error): void {
    this.#initPid.reject(error);
    this.#fatal.reject(error);
  }

  /** A message with what the programs last said. */
  #withStderr(message: string): string {
    const said = this.stderr.lines(4);
    return said.length === 0 ? message : `${message}: ${said.join(" | ")}`;
  }
}

/** How the helper ended: by itself, as PID 1 of the sandbox did (128 and the signal, as shells say it), or killed. */
function describeEnd(code: number | null, signal: NodeJS.Signals | null): string {
  if (signal !== null) return `the sandbox's helper was killed by signal ${constants.signals[signal]}`;
  if (code !== null && code > 128) return `PID 1 of the sandbox was killed by signal ${code - 128}`;
  return `PID 1 of the sandbox ended with status ${code}`;
}
