/**
 * `husk run` and `husk create` of a container that belongs into the sandbox of another one, whose network namespace its bundle names.
 *
 *     front ◄── orders ── the program that front has started ◄── orders ── the sandbox's supervisor
 *                         (`handOver`: asks the supervisor,                 (`serveJoin`: reads the command line,
 *                          and passes on what it says)                       and does all there is to do)
 *
 * So all containers of a sandbox have one supervisor, and a caller sees what it sees of a container with a sandbox of its own.
 */
import { statSync } from "node:fs";
import { connect, type Socket } from "node:net";
import { HuskError } from "../errors.ts";
import { writeJsonLine } from "../host/lines.ts";
import type { ProcessIdentity } from "../host/process-identity.ts";
import { loadBundle } from "../oci/bundle.ts";
import type { Params } from "../sandbox/control.ts";
import { stopping } from "../sandbox/household.ts";
import { type ContainerRecord, readRecord } from "../sandbox/record.ts";
import { deleteContainer, vanishes } from "../sandbox/removal.ts";
import { runFolder, shortPath } from "../sandbox/run-folder.ts";
import { Trace } from "../sandbox/trace.ts";
import { removalOptions } from "./delete.ts";
import { type Log, openSessionLog } from "./log.ts";
import { reporting, servedCall } from "./served-call.ts";
import { Session } from "./session.ts";
import type { Supervision } from "./supervisor.ts";
import { tellerOf } from "./teller.ts";

/** How long the supervisor may say nothing, in milliseconds: its first word needs nothing of the guest, nor of hooks. */
const wordWithinMs = 30_000;

/** Has the supervisor of `neighbour` do what this process was called for. Throws `wrong-state`, `unsupported`, `deadline` or `internal` where it cannot be asked. */
export async function handOver(call: Supervision["call"], session: Session, neighbour: ContainerRecord, log: Log): Promise<void> {
  const { supervisor, id } = neighbour;
  if (supervisor === null) throw new HuskError("wrong-state", stopping(id));
  demandSameView(id, supervisor);
  const { root } = call.globals;
  const socket = await dial(root, id);
  // What was begun is given up, and that told.
  for (const signal of ["SIGINT", "SIGTERM", "SIGHUP", "SIGQUIT"] as const) process.on(signal, () => socket.end());
  writeJsonLine(socket, { session: "join", words: process.argv.slice(2), cwd: process.cwd(), hello: session.hello });
  if (!(await session.relay(socket, wordWithinMs))) {
    throw new HuskError("internal", `the supervisor of container "${id}" ended before it said what became of the call`);
  }
  if (isHeld(root, call.id, supervisor) && (await vanishes(supervisor))) await deleteContainer(root, call.id, true, removalOptions(log));
}

/** Serves what `handOver` sends. `supervise`: makes the container, and stays with it to its end. */
export async function serveJoin(request: Params, front: Socket, supervise: (supervision: Supervision) => Promise<void>): Promise<void> {
  const session = Session.over(front, request["hello"]);
  const call = servedCall(request);
  if (call.verb !== "run" && call.verb !== "create") throw new HuskError("internal", `"${call.verb}" makes no container`);
  await reporting(session, openSessionLog(call.globals, session), call.verb, async (log) => {
    const trace = new Trace(Date.now());
    trace.follow(log.debug);
    await supervise({ call, session, log, trace, teller: tellerOf(call.id, trace, log), bundle: await loadBundle(call.bundle) });
  });
}

/** Whether the container is in the foreground, and has not been deleted by its supervisor: nobody else will, where that is dead. */
function isHeld(root: string, id: string, supervisor: ProcessIdentity): boolean {
  try {
    const record = readRecord(root, id);
    return record.foreground && record.supervisor?.pid === supervisor.pid && record.supervisor.start === supervisor.start;
  } catch (error) {
    if (error instanceof HuskError && error.code === "not-found") return false;
    throw error;
  }
}

/** The supervisor opens the files that the command line names. */
function demandSameView(id: string, { pid }: ProcessIdentity): void {
  const seen = (process: number | "self", name: string): string => {
    const { dev, ino } = statSync(`/proc/${process}/${name}`);
    return `${dev}:${ino}`;
  };
  if (["ns/mnt", "root"].every((name) => seen(pid, name) === seen("self", name))) return;
  throw new HuskError("unsupported", `container "${id}", whose network namespace is named, was created where other files are seen`, {
    hint: "create both in the same mount namespace",
  });
}

async function dial(root: string, id: string): Promise<Socket> {
  const short = shortPath(runFolder(root, id).socket);
  try {
    return await new Promise<Socket>((resolve, reject) => {
      const socket = connect({ path: short.path, allowHalfOpen: true });
      socket.once("error", reject);
      socket.once("connect", () => {
        socket.off("error", reject);
        socket.on("error", () => {}); // `close` follows
        resolve(socket);
      });
    });
  } catch (cause) {
    throw new HuskError("wrong-state", stopping(id), { cause });
  } finally {
    short.release();
  }
}
