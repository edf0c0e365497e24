/**
 * `husk exec`: has the supervisor make the process in the container, and front become (or fork) the stand-in that carries it; ends once the program
 * runs: the rest is between the stand-in and the supervisor. The supervisor itself does it where front could dial it; otherwise a session's child.
 */
import type { Socket } from "node:net";
import { execFailed, explain, HuskError } from "../errors.ts";
import { helperPath } from "../host/installation.ts";
import { nonEmptyString, object, read, ShapeError } from "../narrow.ts";
import { stringifyJson } from "../oci/json.ts";
import { demand } from "../oci/state.ts";
import type { Container, ExecSpec } from "../sandbox/container.ts";
import type { Params } from "../sandbox/control.ts";
import { ControlClient } from "../sandbox/control-client.ts";
import { readRecord } from "../sandbox/record.ts";
import { runFolder } from "../sandbox/run-folder.ts";
import { type Beginning, parseCommandLine } from "./command-line.ts";
import { execProcess } from "./exec-process.ts";
import { type Log, openSessionLog } from "./log.ts";
import { PidFile } from "./pid-file.ts";
import { reporting, servedCall } from "./served-call.ts";
import { Session } from "./session.ts";
import { type ExecOptions, sessionCall } from "./session-options.ts";

/** The guest's own deadline for a call is below this one, in milliseconds. */
const startWithinMs = 120_000;

const execAnswer = object<{ token: string; execId: string }>({ token: nonEmptyString, execId: nonEmptyString });

/** Who makes processes in the container. */
interface Maker extends Disposable {
  readonly make: (spec: ExecSpec) => Promise<Made>;
}

/** A process that is being made: what its stand-in shows, and its PID once the program runs. */
interface Made {
  readonly token: string;
  readonly started: () => Promise<number>;
}

/** Serves the session on descriptor 3. Throws where there is none; every other error is front's to print. */
export async function execSession(beginning: Beginning): Promise<void> {
  const session = await Session.open();
  await reporting(session, openSessionLog(beginning.globals, session), "exec", async (log) => {
    const call = sessionCall(parseCommandLine(beginning));
    if (call.verb === "exec") return exec(call, session, log, () => distant(call, session));
    if (call.verb !== "print") throw new HuskError("internal", `"${call.verb}" is not for this program`);
    session.print(call.text);
    session.exit(0);
  });
}

/** Serves a front that has dialled the supervisor of `container` at `socket`. Calls that are not for that container are declined. */
export async function serveExec(request: Params, front: Socket, container: Container, socket: string): Promise<void> {
  const session = Session.over(front, request["hello"]);
  const call = execCall(request);
  if (call === undefined || runFolder(call.globals.root, call.id).socket !== socket) {
    session.decline();
    return session.close();
  }
  await reporting(session, openSessionLog(call.globals, session), "exec", (log) =>
    exec(call, session, log, async () => near(container, session)),
  );
}

/** What the words of a request ask for, where that is a process. Of anything else, mistakes included, Node tells better. */
function execCall(request: Params): ExecOptions | undefined {
  try {
    const call = servedCall(request);
    return call.verb === "exec" ? call : undefined;
  } catch {
    return undefined;
  }
}

/** The container of this very process. */
function near(container: Container, session: Session): Maker {
  return {
    make: async (spec) => {
      const { token, execId } = container.exec(spec, session.signal);
      return { token, started: () => container.execStarted(execId) };
    },
    [Symbol.dispose]: () => {},
  };
}

/** The container of another process, which serves its control socket. */
async function distant({ globals, id }: ExecOptions, { signal }: Session): Promise<Maker> {
  const client = await ControlClient.connect(globals.root, id);
  return {
    make: async ({ processJson, ...spec }) => {
      const { token, execId } = readAnswer(await client.call("exec", { process: processJson, ...spec }));
      const started = async (): Promise<number> => {
        const { pid } = await client.call("execStarted", { execId }, { deadlineMs: startWithinMs, signal });
        if (typeof pid === "number") return pid;
        throw new HuskError("internal", "the supervisor did not say which process stands for the new one");
      };
      return { token, started };
    },
    [Symbol.dispose]: () => client.close(),
  };
}

async function exec(options: ExecOptions, session: Session, log: Log, connect: () => Promise<Maker>): Promise<void> {
  try {
    await makeProcess(options, session, log, connect);
  } catch (error) {
    log.error(explain(error));
    session.fail(explain(error), execFailed);
  }
}

async function makeProcess(given: ExecOptions, session: Session, log: Log, connect: () => Promise<Maker>): Promise<void> {
  const options = given.process === undefined ? given : { ...given, process: pathOfCaller(given.process, session.hello.pid) };
  const { globals, id, detach } = options;
  const record = readRecord(globals.root, id);
  if (!(record.status === "paused" && options.ignorePaused)) demand("exec", id, record.status);
  const { process, terminal, notes } = await execProcess(options, record.bundle);
  for (const flag of options.meaningless) log.info(`${flag} has no meaning in a virtual machine`);
  for (const note of notes) log.info(note);
  using pidFile = options.pidFile === undefined ? undefined : new PidFile(options.pidFile);
  using maker = await connect();
  log.debug(`exec ${JSON.stringify(process.args)} in container "${id}", which is ${record.status}`);
  const { consoleSize } = process;
  const { token, started } = await maker.make({
    processJson: stringifyJson(process),
    terminal,
    plainNewlines: session.terminal.plainNewlines && options.consoleSocket === undefined,
    consoleSocket: options.consoleSocket ?? null,
    size: consoleSize === undefined ? session.hello.size : { rows: consoleSize.height, columns: consoleSize.width },
    ignorePaused: options.ignorePaused,
    cgroup: options.cgroup ?? "",
  });
  session.attach({ socket: runFolder(globals.root, id).socket, token, detach });
  try {
    const pid = await started();
    log.debug(`the process runs; ${pid} stands for it`);
    pidFile?.write(pid);
    if (options.pidfdSocket !== undefined) await (await import("../host/pidfd.ts")).sendPidfd(helperPath(), pid, options.pidfdSocket);
    if (detach) session.exit(0);
  } catch (error) {
    // From here on there is a stand-in, and the supervisor has told it; front's own words would be the same ones again.
    log.error(explain(error));
    if (detach) session.exit(execFailed);
  }
}

/** A descriptor of the caller's, such as a shell's <(...), by a name that this process can open, which has others. `pid`: front's, which has inherited them. */
export function pathOfCaller(path: string, pid: number): string {
  if (path === "/dev/stdin") return `/proc/${pid}/fd/0`;
  return path.replace(/^\/(?:dev|proc\/self)\/fd\/(\d+)$/, `/proc/${pid}/fd/$1`);
}

function readAnswer(answer: unknown): { readonly token: string; readonly execId: string } {
  try {
    return read(execAnswer, answer);
  } catch (cause) {
    if (!(cause instanceof ShapeError)) throw cause;
    throw new HuskError("internal", "the supervisor's answer to exec cannot be read", { cause });
  }
}
