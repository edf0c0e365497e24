/**
 * The program behind `husk run`, `husk create` and `husk restore`: started by front, it becomes the container's supervisor, and stays until the container has
 * stopped, with every other one that joined its sandbox. A container that belongs into the sandbox of another one it hands over to that one's supervisor (join.ts).
 */
import type { Socket } from "node:net";
import type { Logger } from "pino";
import { type Config, loadConfig } from "../config/config.ts";
import { explain, HuskError } from "../errors.ts";
import { whenAborted } from "../host/aborted.ts";
import { beFrugal, settleMs } from "../host/frugal.ts";
import { helperPath } from "../host/installation.ts";
import { type Bundle, loadBundle } from "../oci/bundle.ts";
import { poolMember } from "../pool/messages.ts";
import type { Container } from "../sandbox/container.ts";
import type { ControlHandlers, Params } from "../sandbox/control.ts";
import { EarlyHelper } from "../sandbox/early-helper.ts";
import type { ProcessOutcome } from "../sandbox/guest-process.ts";
import type { LaunchSandbox } from "../sandbox/hosted-sandbox.ts";
import { runFolder } from "../sandbox/run-folder.ts";
import { Sandbox } from "../sandbox/sandbox.ts";
import { zygoteKeeper } from "../sandbox/start-zygote.ts";
import type { Starter } from "../sandbox/starter.ts";
import { Supervisor } from "../sandbox/supervisor.ts";
import type { Teller } from "../sandbox/telling.ts";
import { Trace } from "../sandbox/trace.ts";
import { parseBeginning, parseCommandLine } from "./command-line.ts";
import { failureStatus } from "./failure-status.ts";
import { neighbourOf } from "./find-neighbour.ts";
import { type Log, openSessionLog } from "./log.ts";
import { PidFile } from "./pid-file.ts";
import { type PlanMachine, type Prepared, type PrepareOptions, prepare, prepareJoining } from "./prepare.ts";
import type { Served } from "./serve-verb.ts";
import { missesOfService } from "./service-manager.ts";
import { type CallerTerminal, Session } from "./session.ts";
import { type SessionCall, sessionCall } from "./session-options.ts";
import { openSupervisorLog } from "./supervisor-log.ts";
import { tellerOf } from "./teller.ts";

export type Call = Extract<SessionCall, { readonly verb: "run" | "create" | "restore" }>;

/** Signals that reach the supervisor itself, and not the stand-in, before there is a container to pass them to: they end the attempt. */
const endingSignals = ["SIGINT", "SIGTERM", "SIGHUP", "SIGQUIT"] as const;

async function main(): Promise<void> {
  const trace = new Trace();
  const session = await Session.open();
  trace.mark("Node and husk loaded");
  let log: Log | undefined;
  let teller: Teller | undefined;
  let operation = "husk";
  let verb: string | undefined;
  try {
    const beginning = parseBeginning(process.argv.slice(2));
    verb = beginning.words[0];
    const call = sessionCall(parseCommandLine(beginning));
    if (call.verb === "print") {
      session.print(call.text);
      session.exit(0);
      return;
    }
    if (call.verb === "exec") throw new HuskError("internal", "exec is not the supervisor's");
    log = openSessionLog(call.globals, session);
    trace.follow(log.debug);
    teller = tellerOf(call.id, trace, log);
    operation = `husk ${call.verb}`;
    const bundle = await loadBundle(call.bundle);
    const neighbour = await neighbourOf(bundle, call.globals.root);
    if (neighbour !== undefined && call.verb === "restore") {
      throw new HuskError("unsupported", "a checkpoint is a whole sandbox's: it cannot be restored into that of another container");
    }
    if (neighbour === undefined) await supervise({ call, session, log, trace, teller, bundle });
    else await (await import("./join.ts")).handOver(call, session, neighbour, log);
  } catch (error) {
    const message = explain(error);
    log?.error(message);
    session.fail(message, failureStatus(error, verb));
    teller?.tell(operation, trace.startMs, error);
  } finally {
    await session.close();
  }
}

/** A container to be made and seen to its end. */
export interface Supervision {
  readonly call: Call;
  readonly session: Session;
  readonly log: Log;
  readonly trace: Trace;
  readonly teller: Teller;
  readonly bundle: Bundle;
}

/** What a container is made from: nothing of it has been begun. */
export interface Planned {
  readonly config: Config;
  readonly prepared: Prepared;
}

async function supervise(supervision: Supervision): Promise<void> {
  const { call, session, bundle, log } = supervision;
  const planned = await plan(call, bundle, { terminal: session.terminal, trace: supervision.trace });
  await carryOut(supervision, planned, () => {
    if (call.verb === "restore" || planned.prepared.input.sandbox.zygote === undefined) return;
    import("./want-standby.ts")
      .then(({ wantStandby }) => wantStandby(bundle.spec, planned.prepared.input.sandbox, planned.config))
      .catch((error: unknown) => log.info(`no sandbox is asked to stand by: ${explain(error)}`));
  });
}

/** What a plan is made with. */
export interface Planning {
  readonly terminal: CallerTerminal;
  readonly trace: Trace;
  /** As `prepare` has it. */
  readonly planMachine?: PlanMachine;
}

/** Reads and checks all that the container needs. */
export async function plan(call: Call, bundle: Bundle, { terminal, trace, planMachine }: Planning): Promise<Planned> {
  const { config } = await loadConfig({
    env: process.env,
    flags: call.accel === undefined ? {} : { "vm.accel": { name: "--accel", text: call.accel } },
  });
  const mark = (phase: string): void => trace.mark(phase);
  return { config, prepared: await prepare(bundle, prepareOptions(call, terminal), config, mark, planMachine) };
}

/** Has the container made, and a sandbox for it, and stays with it. `onStarted`: told once there is nothing more to be done but to wait. */
export async function carryOut(
  supervision: Supervision,
  { config, prepared: { input, accelerator, notes } }: Planned,
  onStarted?: () => void,
): Promise<void> {
  const { session, trace } = supervision;
  const make = async (starter: Starter): Promise<Supervisor> => {
    const gone = interruption(session.signal);
    if (input.launch !== undefined) return Supervisor.create(input, starter, trace, gone);
    await using helper = new EarlyHelper(input.sandbox);
    const launch: LaunchSandbox = (spec, observer) => Sandbox.launch(spec, observer, helper.take());
    return await Supervisor.create({ ...input, launch }, starter, trace, gone);
  };
  await seeThrough(supervision, config, [...notes, ...missesOfService(process.env), accelerator.reason], make, onStarted);
}

/** Makes a further container in the sandbox of `neighbour`. */
async function superviseBeside(neighbour: Supervisor, supervision: Supervision, config: Config): Promise<void> {
  const { call, session, log, trace, bundle } = supervision;
  if (call.accel !== undefined) log.info("--accel has no meaning for a virtual machine that runs already");
  const { input, notes } = await prepareJoining(bundle, prepareOptions(call, session.terminal), config, neighbour);
  trace.mark("bundle read and checked");
  const gone = whenAborted(session.signal);
  await seeThrough(supervision, config, notes, (starter) => neighbour.join(input, starter, trace, gone));
}

function prepareOptions(call: Call, terminal: CallerTerminal): PrepareOptions {
  return {
    root: call.globals.root,
    id: call.id,
    systemdCgroup: call.globals.systemdCgroup,
    consoleSocket: call.consoleSocket ?? null,
    foreground: isForeground(call),
    keep: call.verb === "run" && call.keep,
    terminal,
    imagePath: call.verb === "restore" ? call.imagePath : null,
  };
}

function isForeground(call: Call): boolean {
  return call.verb !== "create" && !call.detach;
}

/** Has the container made, and stays with it until it has stopped. */
async function seeThrough(
  { call, session, log, trace, teller, bundle }: Supervision,
  config: Config,
  notes: readonly string[],
  make: (starter: Starter) => Promise<Supervisor>,
  onStarted?: () => void,
): Promise<void> {
  const foreground = isForeground(call);
  using pidFile = call.pidFile === undefined ? undefined : new PidFile(call.pidFile);
  for (const flag of call.meaningless) log.info(`${flag} has no meaning in a virtual machine`);
  for (const note of notes) log.info(note);

  let supervisorLog: Logger | undefined;
  const warn = (message: string): void => {
    supervisorLog?.warn(message);
    try {
      log.warning(message);
    } catch (error) {
      if (supervisorLog === undefined) throw error; // otherwise the engine has taken its log away with the container: others may go on
    }
  };
  const operation = `husk ${call.verb}`;
  const supervisor = await make({
    attach: (socket: string, token: string) => session.attach({ socket, token, detach: !foreground }),
    warn,
    isStandIn: foreground,
    startsAtOnce: call.verb === "run",
    tellStart: (start) => teller.around("husk start", start),
    serveSession: (request: Params, front: Socket, served: Supervisor, carryOut: ControlHandlers["call"]): void => {
      const serving = serveSession(request, front, {
        container: served.container,
        call: carryOut,
        socket: runFolder(call.globals.root, call.id).socket,
        hasHooksAtStart: hasHooksAtStart(bundle),
        superviseOther: (other) => superviseBeside(served, other, config),
      });
      serving.catch(() => front.destroy()); // front, which has heard nothing, begins again with Node
    },
  });
  if (foreground) session.printBy((text) => supervisor.container.init.standIn.say(text));
  supervisorLog = await openSupervisorLog(runFolder(call.globals.root, call.id).supervisorLog, config.log.level, call.id);
  for (const note of notes) supervisorLog.info(note);
  const { pid } = supervisor.record;
  pidFile?.write(pid);

  try {
    if (call.pidfdSocket !== undefined) await (await import("../host/pidfd.ts")).sendPidfd(helperPath(), pid, call.pidfdSocket);
    if (call.verb === "run") await supervisor.start();
  } catch (error) {
    await supervisor.abandon(error);
    throw error;
  }
  teller.tell(operation, trace.startMs);
  if (call.trace) session.print(`${trace.waterfall()}\n`, "stderr");
  if (!foreground) {
    session.exit(0);
    await session.close();
  }
  onStarted?.();
  // A container that ends at once is not held up by it.
  const settling = setTimeout(beFrugal, settleMs).unref();
  supervisorLog.info(call.verb === "create" ? "the container is created" : "the container runs");

  const outcome = await supervisor.ended();
  clearTimeout(settling);
  supervisorLog.info({ ...outcome.end, reason: outcome.reason }, "the container has stopped");
  if (foreground && !(call.verb === "run" && call.keep)) {
    const regret = (message: string): void => {
      warn(message);
      // The session's log prints it with --debug, or has a file for it; the supervisor's goes with the container.
      if (call.globals.log === undefined && !call.globals.debug) session.print(`husk: warning: ${message}\n`, "stderr");
    };
    await supervisor.runPoststop(regret);
    // What stays is in the ledger, for `husk delete`.
    await supervisor.remove().catch((error: unknown) => regret(explain(error)));
  }
  supervisor.releaseStandIn(outcome, foreground ? lastWords(call.id, outcome) : undefined);
}

interface OwnSession extends Served {
  readonly container: Container;
  readonly superviseOther: (other: Supervision) => Promise<void>;
}

/** Serves a front, by what is loaded at the first call: most containers see none. */
async function serveSession(request: Params, front: Socket, { superviseOther, ...own }: OwnSession): Promise<void> {
  switch (request["session"]) {
    case "join":
      return (await import("./join.ts")).serveJoin(request, front, superviseOther);
    case "verb":
      return (await import("./serve-verb.ts")).serveVerb(request, front, own);
    default:
      return (await import("./exec.ts")).serveExec(request, front, own.container, own.socket);
  }
}

function hasHooksAtStart({ spec: { hooks } }: Bundle): boolean {
  return [hooks?.startContainer, hooks?.poststart].some((list) => list !== undefined && list.length > 0);
}

/** What the caller in the foreground is told where the container did not end on its own account. */
function lastWords(id: string, { reason }: ProcessOutcome): string | undefined {
  if (reason === undefined) return undefined;
  return reason === "out of memory" ? undefined : `the sandbox of "${id}" ended: ${reason}`;
}

/** Rejects at the first signal that asks for the end, or where `frontGone` aborts. From then on signals are the stand-in's business. */
function interruption(frontGone: AbortSignal): Promise<never> {
  const interrupted = new Promise<never>((_, reject) => {
    whenAborted(frontGone).catch(reject);
    for (const signal of endingSignals) process.on(signal, () => reject(new HuskError("host", `interrupted by ${signal}`)));
  });
  interrupted.catch(() => {}); // it may come when nobody waits for it any more
  return interrupted;
}

if (process.argv[2] === poolMember) {
  void import("./pool-member.ts").then(({ servePool }) => servePool(process.argv.slice(3), { plan, carryOut }));
} else if (process.argv[2] === zygoteKeeper) {
  void import("./zygote-keeper.ts").then(({ keep }) => keep(process.argv[3] ?? ""));
} else {
  void main();
}
