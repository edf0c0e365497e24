/**
 * Verbs that need nothing that the container's supervisor has not, carried out by that for a front that has dialled it: as the command line would, by the same code,
 * but without the start of a Node, which takes longer than all the rest.
 */
import type { Socket } from "node:net";
import type { ControlHandlers, Params } from "../sandbox/control.ts";
import { runFolder } from "../sandbox/run-folder.ts";
import type { Callee } from "./call-supervisor.ts";
import type { CommandLine } from "./command-line.ts";
import { kill } from "./kill.ts";
import { openSessionLog } from "./log.ts";
import { reporting, servedLine } from "./served-call.ts";
import { Session } from "./session.ts";
import { simpleCall } from "./simple-calls.ts";
import { state } from "./state.ts";

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
  if (line.verb !== "state") session.take(); // a call that was carried out twice would be told that it has come too late
  const connect = async (): Promise<Callee> => ({
    call: async (method, params) => ((await served.call(method, params, { signal: session.signal })) ?? {}) as Params,
    [Symbol.dispose]: () => {},
  });
  await reporting(session, log, line.verb, async () => {
    if (line.verb === "state") session.print(state(line));
    else if (line.verb === "kill") await kill(line, connect);
    else await simpleCall(line, log, connect);
    session.exit(0);
  });
}

function isFor({ verb, globals, operands: [id = ""] }: ServedVerb, { socket, hasHooksAtStart }: Served): boolean {
  return !globals.debug && runFolder(globals.root, id).socket === socket && !(verb === "start" && hasHooksAtStart);
}

const servedVerbs = ["start", "kill", "pause", "resume", "state"] as const;
type ServedVerb = Extract<CommandLine, { readonly verb: (typeof servedVerbs)[number] }>;

function isServed(line: CommandLine): line is ServedVerb {
  return servedVerbs.some((verb) => verb === line.verb);
}

function servedVerb(request: Params): ServedVerb | undefined {
  try {
    const { line } = servedLine(request);
    return isServed(line) ? line : undefined;
  } catch {
    return undefined;
  }
}
