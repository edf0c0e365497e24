/** Calls that reach a supervisor by its control socket: a command line, read where the caller is, and what goes wrong said to whoever has it. */
import { explain } from "../errors.ts";
import { absolutePath, list, nonEmptyString, object, read, string } from "../narrow.ts";
import type { Params } from "../sandbox/control.ts";
import { type CommandLine, parseBeginning, parseCommandLine } from "./command-line.ts";
import { failureStatus } from "./failure-status.ts";
import type { Log } from "./log.ts";
import type { Session } from "./session.ts";
import { type SessionCall, sessionCall } from "./session-options.ts";

const requestReader = object<{ session: string; words: readonly string[]; cwd: string }>({
  session: nonEmptyString,
  words: list(string),
  cwd: absolutePath,
});

/** What the words of a request ask for. Throws as the command line does. */
export function servedLine(request: Params): { readonly line: CommandLine; readonly cwd: string } {
  const { words, cwd } = read(requestReader, request);
  return { line: parseCommandLine(parseBeginning(words, cwd)), cwd };
}

/** The same of a session's words. */
export function servedCall(request: Params): SessionCall {
  const { line, cwd } = servedLine(request);
  return sessionCall(line, cwd);
}

/** Does a session's work, that of `verb`, and has front print what goes wrong. */
export async function reporting(session: Session, log: Log, verb: CommandLine["verb"], work: (log: Log) => Promise<void>): Promise<void> {
  try {
    await work(log);
  } catch (error) {
    log.error(explain(error));
    session.fail(explain(error), failureStatus(error, verb));
  } finally {
    await session.close();
  }
}
