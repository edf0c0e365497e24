/**
 * What the command line says besides its output: errors and warnings on standard error, and in the file of --log, in the words of logrus,
 * which engines parse: containerd's shim and conmon show the last error line of that file to their users.
 */
import { closeSync, openSync, writeSync } from "node:fs";
import { HuskError } from "../errors.ts";
import type { Globals } from "./globals.ts";
import { complain } from "./output.ts";
import type { Session } from "./session.ts";

export type Level = "debug" | "info" | "warning" | "error";

type LogGlobals = Pick<Globals, "log" | "logFormat" | "debug">;

export interface Log {
  readonly debug: (message: string) => void;
  readonly info: (message: string) => void;
  readonly warning: (message: string) => void;
  readonly error: (message: string) => void;
}

/** Where lines go: standard error, and the log file; in a test, somewhere else. */
export interface LogSinks {
  readonly stderr: (text: string) => void;
  readonly append: (file: string, text: string) => void;
  readonly now: () => Date;
}

const realSinks: LogSinks = {
  stderr: complain,
  append: (file, text) => {
    const descriptor = openSync(file, "a", 0o644); // O_APPEND: engines give one file to many calls
    try {
      writeSync(descriptor, text);
    } finally {
      closeSync(descriptor);
    }
  },
  now: () => new Date(),
};

/**
 * Begins a log, whose file is there from then on: one that cannot be written is told of before anything is done, as runc does. Throws `host`.
 * `toStderr`: false for a session's child, whose standard error is nobody's.
 */
export function openLog(globals: LogGlobals, toStderr = true, sinks: LogSinks = realSinks): Log {
  const append = (text: string): void => {
    if (globals.log === undefined) return;
    try {
      sinks.append(globals.log, text);
    } catch (cause) {
      throw new HuskError("host", `cannot write the log ${globals.log}`, { cause });
    }
  };
  append("");
  const write = (level: Level, message: string): void => {
    if (level === "debug" && !globals.debug) return;
    // What is informative only belongs in a log; without one it is said to those who want to know more.
    const quiet = level === "info" && !globals.debug;
    if (toStderr && !quiet) sinks.stderr(`husk: ${level === "error" ? "" : `${level}: `}${message}\n`);
    append(formatLine(globals.logFormat, level, message, sinks.now()));
  };
  return {
    debug: (message) => write("debug", message),
    info: (message) => write("info", message),
    warning: (message) => write("warning", message),
    error: (message) => write("error", message),
  };
}

/**
 * The log of a session. What ends it front prints as its last words; with --debug, all else is printed as well, unless there is a file for it, as runc has it.
 * Throws `host`.
 */
export function openSessionLog(globals: LogGlobals, session: Pick<Session, "print">): Log {
  const file = openLog(globals, false);
  if (!globals.debug || globals.log !== undefined) return file;
  const say = (level: Level, message: string): void => session.print(`husk: ${level}: ${message}\n`, "stderr");
  return {
    debug: (message) => say("debug", message),
    info: (message) => say("info", message),
    warning: (message) => say("warning", message),
    error: () => {},
  };
}

/** A line as logrus writes it, with its line feed. */
export function formatLine(format: "text" | "json", level: Level, message: string, at: Date): string {
  const time = at.toISOString().replace(/\.\d+Z$/, "Z");
  return format === "json"
    ? `${JSON.stringify({ level, msg: message, time })}\n`
    : `time=${JSON.stringify(time)} level=${level} msg=${JSON.stringify(message)}\n`;
}
