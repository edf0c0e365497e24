/**
 * Verbs that need the container's supervisor and nothing else, carried out by that for a front that has dialled it: as the command line would, by the same code, but
 * without the start of a Node, which takes longer than all the rest.
 */
import type { Socket } from "node:net";
import type { ControlHandlers, Params } from "../sandbox/control.ts";
import { runFolder } from "../sandbox/run-folder.ts";
import type { Callee } from "./call-supervisor.ts";
import type { Invocation } from "./command-line.ts";
import { kill } from "./kill.ts";
import { openSessionLog } from "./log.ts";
import { reporting, servedLine } from "./served-call.ts";
import { Session } from "./session.ts";
import { simpleCall } from "./simple-calls.ts";

/** What the one who serves knows of itself. */
export interface Served {
  /** Its control socket: of what container it is. */
  readonly socket: string;
  /** A hook may fail at the start, which ends the container, and the supervisor with it: by then somebody else has to be there to remove it. */
  readonly hasHooksAtStart: boolean;
  readonly call: ControlHandlers["call"];
}

/** Serves a front. Calls that are not for that container are declined, as is whatever Node tells better: mistakes, and whoever wants to know more. */
export async function serveVerb(request: Params, front: Socket, served: Served): Promise<void> {
  const session = Session.over(front, request["hello"]);
  const line = servedVerb(request);
  if (line === undefined || !isFor(line, served)) {
    session.decline();
    return session.close();
  }
  const log = openSessionLog(line.globals, session);
  session.take(); // a call that was carried out twice would be told that it has come too late
  const connect = async (): Promise<Callee> => ({
    call: async (method, params) => ((await served.call(method, params, { signal: session.signal })) ?? {}) as Params,
    [Symbol.dispose]: () => {},
  });
  await reporting(session, log, line.verb, async () => {
    if (line.verb === "kill") await kill(line, connect);
    else await simpleCall(line, log, connect);
    session.exit(0);
  });
}

function isFor({ verb, globals, operands: [id = ""] }: ServedVerb, { socket, hasHooksAtStart }: Served): boolean {
  return !globals.debug && runFolder(globals.root, id).socket === socket && !(verb === "start" && hasHooksAtStart);
}

type ServedVerb = Invocation<"start"> | Invocation<"kill"> | Invocation<"pause"> | Invocation<"resume">;

function servedVerb(request: Params): ServedVerb | undefined {
  try {
    const { line } = servedLine(request);
    return line.verb === "start" || line.verb === "kill" || line.verb === "pause" || line.verb === "resume" ? line : undefined;
  } catch {
    return undefined;
  }
}
