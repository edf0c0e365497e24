/**
 * A member of the pool as a program: the supervisor of a container that nobody has asked for yet. Front dials it, and from then on it is what it would
 * be, had front started it: with the caller's environment, umask and cgroups, and its command line's relative paths.
 */
import { join } from "node:path";
import { explain, HuskError } from "../errors.ts";
import { integer, nonEmptyString, object, oneOf, read } from "../narrow.ts";
import { loadBundle } from "../oci/bundle.ts";
import { Member } from "../pool/member.ts";
import { inheritedReaders, type TakeRequest } from "../pool/messages.ts";
import { programIdentity } from "../pool/program-identity.ts";
import { Spare } from "../pool/spare.ts";
import { become, beMember, joinCaller } from "../pool/taking.ts";
import { type Asked, OtherMachine, type Waiter } from "../pool/waiter.ts";
import type { LaunchSandbox } from "../sandbox/hosted-sandbox.ts";
import { Trace } from "../sandbox/trace.ts";
import { parseBeginning, parseCommandLine } from "./command-line.ts";
import { failureStatus } from "./failure-status.ts";
import { neighbourOf } from "./find-neighbour.ts";
import { openSessionLog } from "./log.ts";
import { complain } from "./output.ts";
import { Session } from "./session.ts";
import { sessionCall } from "./session-options.ts";
import type { carryOut, Planned, plan, Supervision } from "./supervisor.ts";
import { tellerOf } from "./teller.ts";

/** What a supervisor does, by the program that this one is a part of. */
interface Work {
  readonly plan: typeof plan;
  readonly carryOut: typeof carryOut;
}

const requestReader = object<TakeRequest>({
  ...inheritedReaders,
  session: oneOf(["run", "create"]),
  program: nonEmptyString,
  began: integer(0),
  hello: (value) => value,
});

/** Serves the pool that has started this process, and then the call that takes it. */
export function servePool([order = ""]: readonly string[], work: Work): Promise<void> {
  // Before it waits: by then the file may be another one.
  const program = programIdentity(process.argv[1] ?? "");
  return beMember(order, {
    complain: (message) => complain(`${message}\n`),
    start: (ordered, config, warn): Promise<Waiter> =>
      ordered.spare === true ? Spare.start(ordered, config) : Member.start(ordered, config, warn),
    prepare: (member, { folder }) => rehearseReading(member, folder, work),
    taking: (member) => nextTaking(member, program, work),
    serve: (member, taking, onStarted) => serve(member, taking, work, onStarted),
  });
}

/** Reads a bundle once, so that this process has what that needs at hand. */
async function rehearseReading(member: Waiter, folder: string, work: Work): Promise<void> {
  const words = ["run", "--bundle", join(folder, "rehearsal"), "rehearsal"];
  const call = sessionCall(parseCommandLine(parseBeginning(words)));
  if (call.verb !== "run") throw new HuskError("internal", "the rehearsal is no run");
  await work
    .plan(call, await loadBundle(call.bundle), {
      terminal: { size: null, plainNewlines: false },
      trace: new Trace(),
      planMachine: (spec, config) => member.planMachine(spec, config),
    })
    .catch((error: unknown) => {
      if (!(error instanceof OtherMachine)) throw error; // the pool's flags say so
    });
  await import("pino"); // the supervisor's log
}

/** A call that this member does for. */
interface Taking {
  readonly supervision: Supervision;
  readonly planned: Planned;
}

/** Waits for a call that this member does for, and declines others: nothing of them has been begun, so nothing is lost. */
async function nextTaking(member: Waiter, program: string, work: Work): Promise<Taking> {
  for (;;) {
    const asked = await member.asked();
    const own = { environment: { ...process.env }, umask: process.umask() };
    const taking = await judge(member, program, asked, work);
    if (taking !== undefined) return taking;
    become(own);
  }
}

/** What the caller's own supervisor would do, as far as it does nothing. Of mistakes, that one tells better. */
async function judge(member: Waiter, program: string, { front, line }: Asked, work: Work): Promise<Taking | undefined> {
  let session: Session | undefined;
  try {
    const request = read(requestReader, JSON.parse(line));
    if (request.program !== program) throw new HuskError("unsupported", "it is of another installation");
    const trace = new Trace(request.began / 1000);
    session = Session.over(front, request.hello);
    trace.mark(member.takenFrom);
    become({ environment: Object.fromEntries(request.environment), umask: request.umask });
    const call = sessionCall(parseCommandLine(parseBeginning(request.words, request.cwd)), request.cwd);
    if (call.verb !== "run" && call.verb !== "create") throw new HuskError("internal", `"${call.verb}" is not for the pool`);
    const bundle = await loadBundle(call.bundle);
    // Who joins another container's sandbox needs none.
    if ((await neighbourOf(bundle, call.globals.root)) !== undefined) {
      throw new HuskError("unsupported", "it belongs into the sandbox of another container");
    }
    const planned = await work.plan(call, bundle, {
      terminal: session.terminal,
      trace,
      planMachine: (spec, config) => member.planMachine(spec, config),
    });
    const { disks, shares } = planned.prepared.input.sandbox;
    member.demandPlace(shares, disks.length);
    if (session.signal.aborted) throw session.signal.reason as Error;
    const log = openSessionLog(call.globals, session);
    session.take();
    trace.follow(log.debug);
    return { supervision: { call, session, log, trace, teller: tellerOf(call.id, trace, log), bundle }, planned };
  } catch (error) {
    session?.decline(error instanceof OtherMachine ? error.key : undefined);
    if (session === undefined) front.destroy();
    else await session.close();
    return undefined;
  }
}

async function serve(member: Waiter, { supervision, planned }: Taking, work: Work, onStarted: () => void): Promise<void> {
  const { session, log } = supervision;
  const { input } = planned.prepared;
  let isLaunched = false;
  try {
    // Before there is anything that could remain.
    await member.begin(input.sandbox);
    const launch: LaunchSandbox = (spec, observer) => {
      isLaunched = true;
      return member.launch(spec, observer, (helperPid) => joinCaller(session.hello.pid, helperPid, input.cgroups.hierarchies));
    };
    await work.carryOut(supervision, { ...planned, prepared: { ...planned.prepared, input: { ...input, launch } } }, onStarted);
  } catch (error) {
    const message = explain(error);
    log.error(message);
    session.fail(message, failureStatus(error, supervision.call.verb));
    supervision.teller.tell(`husk ${supervision.call.verb}`, supervision.trace.startMs, error);
  } finally {
    // From then on it ends with the last container in it, which need not be this one.
    if (!isLaunched) await member.discard();
    await session.close();
  }
}
