/**
 * The shim's server that stands by: a member of a pool (pool/standby.ts) with a sandbox that waits, and with this program loaded. The `start` that would start a
 * server asks it first (guest-agent/helper/src/shim/standby.rs), with all that its child would have of it:
 *
 *     {"words":["serve",...],"cwd":...,"umask":...,"environment":[[NAME,VALUE]...],"program":"DEVICE:INODE:NANOSECONDS","pid":...,"cgroups":[...],"oom_score":...}
 *                               {"event":"suits"}     or the end: it does not suit, and waits on
 *     {"op":"serve"}                                  or the end: another one serves, and it waits on
 *                               {"event":"serves"}    or the end: it has ended, and another one is to be started
 *     {"op":"keep"}                                   or the end: nobody was told of it, and it ends
 */

import { once } from "node:events";
import { closeSync, constants, fstatSync, openSync, readFileSync, writeFileSync, writeSync } from "node:fs";
import type { Socket } from "node:net";
import { type Config, loadConfig } from "../config/config.ts";
import { HuskError } from "../errors.ts";
import { findHierarchies } from "../host/cgroups.ts";
import { deferred } from "../host/deferred.ts";
import { readJsonLines, writeJsonLine } from "../host/lines.ts";
import { hasCode } from "../host/system-error.ts";
import { integer, list, nonEmptyString, object, optional, read } from "../narrow.ts";
import { loadBundle } from "../oci/bundle.ts";
import { Member } from "../pool/member.ts";
import { type Inherited, inheritedReaders } from "../pool/messages.ts";
import { programIdentity } from "../pool/program-identity.ts";
import { become, beMember, joinCaller } from "../pool/taking.ts";
import { OtherMachine } from "../pool/waiter.ts";
import type { VmPlan } from "../sandbox/plan-vm.ts";
import type { Sandbox } from "../sandbox/sandbox.ts";
import type { SandboxSpec } from "../sandbox/sandbox-plan.ts";
import type { SandboxNeeds, WaitingSandbox } from "../task/pod.ts";
import { isPause, podSpec } from "../task/pod-annotations.ts";
import { isPodBundle } from "../task/pod-bundle.ts";
import { parseShim, type ShimCall } from "./arguments.ts";
import { openServer, ownVariables, type ShimServer } from "./serve.ts";
import { socketPath } from "./shim-folder.ts";

interface StartRequest extends Inherited {
  readonly program: string;
  readonly pid: number;
  readonly cgroups: readonly string[];
  readonly oom_score?: number;
}

const requestReader = object<StartRequest>({
  ...inheritedReaders,
  program: nonEmptyString,
  pid: integer(1),
  cgroups: list(nonEmptyString),
  oom_score: optional(integer(-1000, 1000)),
});

/** Serves the pool that has started this process, and then containerd. */
export function serveStandby([order = ""]: readonly string[]): Promise<void> {
  for (const name of ownVariables) delete process.env[name];
  // Before it waits: by then the file may be another one.
  const program = programIdentity(process.argv[1] ?? "");
  return beMember(order, { complain, start: Member.start, taking: (member) => nextTaking(member, program), serve });
}

/** To the pool, or to the log of the bundle. By no stream: nothing else must hold the descriptor. */
function complain(message: string): void {
  try {
    writeSync(2, `${message}\n`);
  } catch {
    // EAGAIN or EPIPE: there is nobody to tell
  }
}

/** A start that this process serves for. */
interface Taking {
  readonly request: StartRequest;
  readonly call: ShimCall;
  readonly config: Config;
  readonly start: StartConversation;
}

/** The conversation with a start: it says what is to be done next, or hangs up. */
class StartConversation {
  readonly #socket: Socket;
  readonly #heard = { serve: deferred<void>(), keep: deferred<void>() };

  constructor(socket: Socket) {
    this.#socket = socket;
    const steps = [this.#heard.serve, this.#heard.keep];
    for (const { promise } of steps) promise.catch(() => {}); // whoever awaits it gets it
    readJsonLines(
      socket,
      "the shim's start",
      ({ op }) => {
        if (op === "serve" || op === "keep") this.#heard[op].resolve();
      },
      () => {
        for (const step of steps) step.reject(new HuskError("host", "the shim's start has hung up"));
      },
    );
  }

  say(event: "suits" | "serves"): void {
    writeJsonLine(this.#socket, { event });
  }

  /** Throws `host` where it hangs up before. */
  hears(op: "serve" | "keep"): Promise<void> {
    return this.#heard[op].promise;
  }

  hangUp(): void {
    this.#socket.destroy();
  }
}

/** Waits for a start that this process does for, and is told to serve; others are declined: nothing of them has been begun, so nothing is lost. */
async function nextTaking(member: Member, program: string): Promise<Taking> {
  for (;;) {
    const { front, line } = await member.asked();
    const own = { environment: { ...process.env }, umask: process.umask() };
    const start = new StartConversation(front);
    try {
      const taking = await judge(member, program, line, start);
      start.say("suits");
      await start.hears("serve");
      return taking;
    } catch {
      start.hangUp(); // of what is wrong with a call, the server that is started for it tells
      become(own);
    }
  }
}

/** What a server that is started would find, as far as it does nothing. Throws where this one does not suit. */
async function judge(member: Member, program: string, line: string, start: StartConversation): Promise<Taking> {
  const request = read(requestReader, JSON.parse(line));
  if (request.program !== program) throw new HuskError("unsupported", "it is of another installation");
  become({ environment: Object.fromEntries(request.environment), umask: request.umask });
  const call = parseShim(request.words);
  const { config } = await loadConfig({ env: process.env, flags: {} });
  if (call.action !== "serve") throw new HuskError("unsupported", `it serves, and nothing else: ${call.action}`);
  // What a pod of the Sandbox API is to be comes with its creation.
  if (!(await isPodBundle(call.bundle))) {
    const { spec } = await loadBundle(call.bundle);
    await member.planMachine(isPause(spec.annotations) ? podSpec(spec) : spec, config, call.namespace);
  }
  return { request, call, config, start };
}

/** The sandbox that has waited with this process, for the first task. */
class StandingSandbox implements WaitingSandbox {
  readonly #member: Member;
  readonly #joined: Promise<void>;
  readonly #namespace: string;
  readonly #config: Config;
  #state: "waits" | "dead" | "given" = "waits";
  #ending: Promise<void> | undefined;

  /** `joined`: settles when its processes are where those of a server are. */
  constructor(member: Member, { call, config }: Taking, joined: Promise<void>) {
    this.#member = member;
    this.#joined = joined;
    this.#namespace = call.namespace;
    this.#config = config;
    void member.sandbox.died.then(() => {
      if (this.#state === "waits") this.#state = "dead";
    });
  }

  async plan({ spec, disks }: SandboxNeeds): Promise<VmPlan | undefined> {
    await this.#joined; // a shim that cannot be where it belongs makes nothing
    if (this.#state !== "waits" || disks.length > 0) return undefined;
    try {
      return await this.#member.planMachine(spec, this.#config, this.#namespace);
    } catch (error) {
      if (error instanceof OtherMachine) return undefined;
      throw error;
    }
  }

  readonly launch = (spec: SandboxSpec): Sandbox => {
    this.#state = "given";
    return this.#member.adopt(spec, this.#joined);
  };

  end(): Promise<void> {
    if (this.#state === "given") return Promise.resolve();
    this.#state = "dead";
    this.#ending ??= this.#member.discard();
    return this.#ending;
  }
}

/** Is the server that the start's child would be. Whatever fails before containerd has been told of it ends this process, and start begins anew. */
async function serve(member: Member, taking: Taking, onStarted: () => void): Promise<void> {
  const { request, call, config, start } = taking;
  process.chdir(request.cwd);
  openLog();
  // As ps shows a server that was started.
  process.title = [process.execPath, ...process.execArgv, process.argv[1] ?? "", ...request.words].join(" ");
  const hierarchies = findHierarchies(readFileSync("/proc/self/mountinfo", "utf8"));
  const joined = Promise.all([
    joinCaller(request.pid, member.sandbox.helperPid, hierarchies, request.cgroups),
    member.sandbox.pids().then((pids) => setOomScore([process.pid, ...pids], request.oom_score)),
  ]).then(() => {});
  joined.catch(() => {}); // whoever awaits it gets it
  const server = await openServer(call, { config, waiting: new StandingSandbox(member, taking, joined), onStarted });
  await listen(server.listener, socketPath(call.socket));
  start.say("serves");
  try {
    await start.hears("keep");
  } catch (error) {
    await server.end();
    throw error;
  }
  start.hangUp();
  await server.over;
}

/** Nobody but its owner may connect: there is no moment at which others could. */
async function listen(listener: ShimServer["listener"], path: string): Promise<void> {
  const before = process.umask(0o177);
  try {
    listener.listen({ path, backlog: 128 });
  } finally {
    process.umask(before);
  }
  await once(listener, "listening");
}

/**
 * Has the standard streams be the bundle's log, a FIFO that containerd reads, as for a server that is started; nothing where there is none, or nobody reads it. The
 * lowest number that is free is the next one's (open(2)), and nobody but this thread opens anything now.
 */
function openLog(): void {
  for (const number of [1, 2]) {
    closeSync(number);
    let opened = openFifo("log");
    opened ??= openSync("/dev/null", "w");
    if (opened !== number) throw new HuskError("internal", `descriptor ${opened} was opened in place of ${number}`);
  }
}

function openFifo(path: string): number | undefined {
  const { O_WRONLY, O_NONBLOCK, O_NOFOLLOW, O_NOCTTY } = constants;
  try {
    const opened = openSync(path, O_WRONLY | O_NONBLOCK | O_NOFOLLOW | O_NOCTTY);
    if (fstatSync(opened).isFIFO()) return opened;
    closeSync(opened);
    return undefined;
  } catch (error) {
    if (hasCode(error, "ENOENT", "ENXIO", "ELOOP", "EACCES")) return undefined;
    throw error;
  }
}

/** Lowering it may be forbidden; everything works all the same, as with a server that is started. */
function setOomScore(pids: readonly number[], score: number | undefined): void {
  if (score === undefined) return;
  for (const pid of pids) {
    try {
      writeFileSync(`/proc/${pid}/oom_score_adj`, String(score));
    } catch (error) {
      if (!hasCode(error, "EACCES", "EPERM", "ENOENT", "ESRCH")) throw error;
    }
  }
}
