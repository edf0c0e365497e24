/** The `husk` program, apart from run and create: reads the command line, and loads what its verb needs, and nothing else. */
import { explain, HuskError } from "../errors.ts";
import { type Beginning, type CommandLine, parseBeginning, parseCommandLine } from "./command-line.ts";
import { failureStatus } from "./failure-status.ts";
import { helpText } from "./help.ts";
import { type Log, openLog } from "./log.ts";
import { complain, print } from "./output.ts";
import { versionText } from "./version-text.ts";

/** Carries a command line out, and answers the exit status. */
async function main(args: readonly string[]): Promise<number> {
  let log = openLog({ log: undefined, logFormat: "text", debug: false });
  let beginning: Beginning | undefined;
  try {
    beginning = parseBeginning(args);
    log = openLog(beginning.globals);
    if (beginning.words[0] === "exec" && beginning.asks === "verb") {
      await (await import("./exec.ts")).execSession(beginning);
      return 0; // front has the status
    }
    return (await dispatch(parseCommandLine(beginning), log)) ?? 0;
  } catch (error) {
    report(error, log, beginning?.globals.debug === true);
    return failureStatus(error, beginning?.words[0]);
  }
}

/** Runs the verb. Answers the exit status where it is not 0. */
async function dispatch(line: CommandLine, log: Log): Promise<number | void> {
  switch (line.verb) {
    case "help":
      return print(helpText(line.of));
    case "version":
      return print(versionText());
    case "state":
      return print((await import("./state.ts")).state(line));
    case "list":
      return (await import("./list.ts")).list(line, log);
    case "kill":
      return (await import("./kill.ts")).kill(line);
    case "delete":
      return (await import("./delete.ts")).deleteVerb(line, log);
    case "start":
    case "pause":
    case "resume":
      return (await import("./simple-calls.ts")).simpleCall(line, log);
    case "ps":
      return (await import("./ps.ts")).ps(line);
    case "update":
      return (await import("./update.ts")).update(line, log);
    case "events":
      return (await import("./events.ts")).events(line, log);
    case "stats":
      return (await import("./host-memory.ts")).stats(line, log);
    case "checkpoint":
      return (await import("./checkpoint.ts")).checkpoint(line, log);
    case "spec":
      return (await import("./spec.ts")).spec(line);
    case "logs":
      return (await import("./logs.ts")).logs(line);
    case "doctor":
      return (await import("./doctor.ts")).doctor(line);
    case "config":
      return (await import("./show-config.ts")).showConfig();
    case "gc":
      return (await import("./gc.ts")).gc(line, log);
    case "template":
      return (await import("./template.ts")).template(line);
    case "pool":
      return (await import("./pool.ts")).pool(line, log);
    case "features":
      return (await import("./features.ts")).features();
    case "completion":
      return (await import("./completion.ts")).completion(line);
    case "run":
    case "create":
    case "restore":
    case "exec":
      throw new HuskError("internal", `"${line.verb}" begins with husk's front`, {
        hint: "call it as `husk`, or as bin/husk in a checkout",
      });
    default:
      line satisfies never;
  }
}

function report(error: unknown, log: Log, debug: boolean): void {
  const defect = error instanceof HuskError ? "" : "internal error: ";
  const message = `${defect}${explain(error)}`;
  try {
    log.error(message);
  } catch (unwritable) {
    complain(`husk: ${explain(unwritable)}\n`); // the message itself is out: standard error comes first
  }
  if (debug && error instanceof Error) complain(`${error.stack ?? ""}\n`);
}

void main(process.argv.slice(2)).then((status) => {
  process.exitCode = status;
});
