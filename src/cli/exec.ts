/**
 * `husk exec`: a session's child. It makes the process in the container, has front become (or fork) the stand-in that carries it, and ends once
 * the program runs: the rest is between the stand-in and the supervisor.
 */
import { exitStatus, explain, HuskError } from "../errors.ts";
import { nonEmptyString, object, read, ShapeError } from "../narrow.ts";
import { stringifyJson } from "../oci/json.ts";
import { demand } from "../oci/state.ts";
import { ControlClient } from "../sandbox/control-client.ts";
import { readRecord } from "../sandbox/record.ts";
import { runFolder } from "../sandbox/run-folder.ts";
import { type Beginning, parseCommandLine } from "./command-line.ts";
import { execProcess } from "./exec-process.ts";
import { type Log, openLog } from "./log.ts";
import { PidFile } from "./pid-file.ts";
import { Session } from "./session.ts";
import { type ExecOptions, sessionCall } from "./session-options.ts";

/** The guest's own deadline for a call is below this one, in milliseconds. */
const startWithinMs = 120_000;

const execAnswer = object<{ token: string; execId: string }>({ token: nonEmptyString, execId: nonEmptyString });

/** Serves the session on descriptor 3. Throws where there is none; every other error is front's to print. */
export async function execSession(beginning: Beginning): Promise<void> {
  const session = await Session.open();
  const log = openLog(beginning.globals, false);
  try {
    const call = sessionCall(parseCommandLine(beginning));
    if (call.verb === "exec") return await exec(call, session, log);
    if (call.verb !== "print") throw new HuskError("internal", `"${call.verb}" is not for this program`);
    session.print(call.text);
    session.exit(0);
  } catch (error) {
    log.error(explain(error));
    session.fail(explain(error), exitStatus(error));
  } finally {
    await session.close();
  }
}

async function exec(options: ExecOptions, session: Session, log: Log): Promise<void> {
  const { globals, id, detach } = options;
  const record = readRecord(globals.root, id);
  if (!(record.status === "paused" && options.ignorePaused)) demand("exec", id, record.status);
  const { process, terminal, notes } = await execProcess(options, record.bundle);
  for (const flag of options.meaningless) log.info(`${flag} has no meaning in a virtual machine`);
  for (const note of notes) log.info(note);
  using pidFile = options.pidFile === undefined ? undefined : new PidFile(options.pidFile);
  using client = await ControlClient.connect(globals.root, id);
  const { consoleSize } = process;
  const { token, execId } = readAnswer(
    await client.call("exec", {
      process: stringifyJson(process),
      terminal,
      consoleSocket: options.consoleSocket ?? null,
      size: consoleSize === undefined ? session.hello.size : { rows: consoleSize.height, columns: consoleSize.width },
      ignorePaused: options.ignorePaused,
    }),
  );
  session.attach({ socket: runFolder(globals.root, id).socket, token, detach });
  try {
    const { pid } = await client.call("execStarted", { execId }, { deadlineMs: startWithinMs, signal: session.signal });
    if (typeof pid !== "number") throw new HuskError("internal", "the supervisor did not say which process stands for the new one");
    pidFile?.write(pid);
    if (detach) session.exit(0);
  } catch (error) {
    // From here on there is a stand-in, and the supervisor has told it; front's own words would be the same ones again.
    log.error(explain(error));
    if (detach) session.exit(exitStatus(error));
  }
}

function readAnswer(answer: unknown): { readonly token: string; readonly execId: string } {
  try {
    return read(execAnswer, answer);
  } catch (cause) {
    if (!(cause instanceof ShapeError)) throw cause;
    throw new HuskError("internal", "the supervisor's answer to exec cannot be read", { cause });
  }
}
