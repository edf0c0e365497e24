/**
 * The program behind `husk run` and `husk create`: started by front, it becomes the container's supervisor, and stays until the container has stopped.
 */
import type { Socket } from "node:net";
import { loadConfig } from "../config/config.ts";
import { exitStatus, explain, HuskError } from "../errors.ts";
import type { Container } from "../sandbox/container.ts";
import type { Params } from "../sandbox/control.ts";
import type { ProcessOutcome } from "../sandbox/guest-process.ts";
import { runFolder } from "../sandbox/run-folder.ts";
import { Supervisor } from "../sandbox/supervisor.ts";
import { Trace } from "../sandbox/trace.ts";
import { type Log, openLog } from "./log.ts";
import { PidFile } from "./pid-file.ts";
import { prepare } from "./prepare.ts";
import { Session } from "./session.ts";
import { parseSession, type SessionCall } from "./session-options.ts";
import { openSupervisorLog } from "./supervisor-log.ts";

type Call = Extract<SessionCall, { readonly verb: "run" | "create" }>;

/** Signals that reach the supervisor itself, and not the stand-in, before there is a container to pass them to: they end the attempt. */
const endingSignals = ["SIGINT", "SIGTERM", "SIGHUP", "SIGQUIT"] as const;

async function main(): Promise<void> {
  const trace = new Trace();
  const session = await Session.open();
  trace.mark("Node and husk loaded");
  let log: Log | undefined;
  try {
    const call = parseSession(process.argv.slice(2));
    if (call.verb === "print") {
      session.print(call.text);
      session.exit(0);
      return;
    }
    if (call.verb === "exec") throw new HuskError("internal", "exec is not the supervisor's");
    log = openLog(call.globals, false);
    await supervise(call, session, log, trace);
  } catch (error) {
    const message = explain(error);
    log?.error(message);
    session.fail(message, exitStatus(error));
  } finally {
    await session.close();
  }
}

async function supervise(call: Call, session: Session, log: Log, trace: Trace): Promise<void> {
  const foreground = call.verb === "run" && !call.detach;
  const { config } = await loadConfig({
    env: process.env,
    flags: call.accel === undefined ? {} : { "vm.accel": { name: "--accel", text: call.accel } },
  });
  const { input, accelerator, notes } = await prepare(
    {
      root: call.globals.root,
      id: call.id,
      bundle: call.bundle,
      consoleSocket: call.consoleSocket ?? null,
      foreground,
      keep: call.verb === "run" && call.keep,
      size: session.hello.size,
    },
    config,
  );
  using pidFile = call.pidFile === undefined ? undefined : new PidFile(call.pidFile);
  for (const flag of call.meaningless) log.info(`${flag} has no meaning in a virtual machine`);
  for (const note of notes) log.info(note);
  log.info(accelerator.reason);
  trace.mark("bundle read and checked");

  const starter = {
    attach: (socket: string, token: string) => session.attach({ socket, token, detach: !foreground }),
    warn: (message: string) => log.warning(message),
    isStandIn: foreground,
    serveExec: (request: Params, front: Socket, container: Container): void => {
      // Loaded at the first call: most containers see none.
      void import("./exec.ts")
        .then(({ serveExec }) => serveExec(request, front, container, runFolder(call.globals.root, call.id).socket))
        .catch(() => front.destroy()); // front, which has heard nothing, begins again with Node
    },
  };
  const supervisor = await Supervisor.create(input, starter, trace, interruption());
  const supervisorLog = await openSupervisorLog(runFolder(call.globals.root, call.id).supervisorLog, config.log.level, call.id);
  for (const note of [accelerator.reason, ...notes]) supervisorLog.info(note);
  pidFile?.write(supervisor.record.pid);

  if (call.verb === "run") {
    try {
      await supervisor.start();
    } catch (error) {
      await supervisor.abandon(error);
      throw error;
    }
    if (call.trace && foreground) supervisor.say(`${trace.waterfall()}\n`);
  }
  if (!foreground) {
    if (call.trace) session.print(`${trace.waterfall()}\n`, "stderr");
    session.exit(0);
  }
  supervisorLog.info(call.verb === "run" ? "the container runs" : "the container is created");

  const outcome = await supervisor.ended();
  supervisorLog.info({ ...outcome.end, reason: outcome.reason }, "the container has stopped");
  if (call.verb === "run" && foreground && !call.keep) {
    await supervisor.runPoststop().catch((error: unknown) => log.warning(explain(error)));
    await supervisor.remove();
  }
  supervisor.releaseStandIn(outcome, foreground ? lastWords(call.id, outcome) : undefined);
}

/** What the caller in the foreground is told where the container did not end on its own account. */
function lastWords(id: string, { reason }: ProcessOutcome): string | undefined {
  if (reason === undefined) return undefined;
  return reason === "out of memory" ? undefined : `the sandbox of "${id}" ended: ${reason}`;
}

/** Rejects at the first signal that asks for the end. From then on signals are the stand-in's business. */
function interruption(): Promise<never> {
  const interrupted = new Promise<never>((_, reject) => {
    for (const signal of endingSignals) process.on(signal, () => reject(new HuskError("host", `interrupted by ${signal}`)));
  });
  interrupted.catch(() => {}); // it may come when nobody waits for it any more
  return interrupted;
}

void main();
