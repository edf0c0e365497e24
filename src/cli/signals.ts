/** Signals by name and by number, as kill(1) and runc take them. */
import { constants } from "node:os";
import { nearest } from "../config/nearest.ts";
import { HuskError } from "../errors.ts";

/** Linux's real-time signals, as a program sees them: the C library keeps the first two for itself. */
const [firstRealTime, lastRealTime] = [34, 64];

/** The number of a signal: "9", "KILL", "SIGKILL", "kill", "RTMIN+1". Throws `invalid-argument`. */
export function parseSignal(text: string): number {
  if (/^\d{1,3}$/.test(text)) {
    const number = Number(text);
    if (number <= lastRealTime) return number;
    throw new HuskError("invalid-argument", `unknown signal "${text}": the last one is ${lastRealTime}`);
  }
  const name = text.toUpperCase().replace(/^SIG/, "");
  const number = named(name) ?? realTime(name);
  if (number !== undefined) return number;
  const near = nearest(
    name,
    Object.keys(constants.signals).map((known) => known.slice(3)),
  );
  throw new HuskError("invalid-argument", `unknown signal "${text.slice(0, 32)}"${near === undefined ? "" : `; did you mean ${near}?`}`);
}

function named(name: string): number | undefined {
  const signals: Readonly<Record<string, number>> = constants.signals;
  return Object.hasOwn(signals, `SIG${name}`) ? signals[`SIG${name}`] : undefined;
}

function realTime(name: string): number | undefined {
  const [, end, sign, offset = "0"] = /^RT(MIN|MAX)(?:([+-])(\d{1,2}))?$/.exec(name) ?? [];
  if (end === undefined || (end === "MIN" ? sign === "-" : sign === "+")) return undefined;
  const number = end === "MIN" ? firstRealTime + Number(offset) : lastRealTime - Number(offset);
  return number >= firstRealTime && number <= lastRealTime ? number : undefined;
}
