/**
 * JSON as programs in Go write it: with 64-bit numbers, of which a double would lose the last digits (RLIM_INFINITY becomes a number
 * that no u64 holds). Such numbers are bigints here, on the way in and on the way out.
 */
import { HuskError } from "../errors.ts";
import { jsonError } from "./json-position.ts";

/** Both are in ECMAScript's "JSON.parse source text access", which TypeScript's libraries do not know yet. */
interface SourceTextAccess {
  parse(text: string, reviver: (this: unknown, key: string, value: unknown, context: { readonly source?: string }) => unknown): unknown;
  rawJSON(text: string): unknown;
}
const json: SourceTextAccess = JSON as unknown as SourceTextAccess;

/** Numbers of fewer digits are exact as doubles. The reviver makes parsing several times slower, and is rarely needed. */
const manyDigits = /\d{16}/;

/** @param name of the document, for the message: `config.json: line 3, column 5: ...`. */
export function parseJson(text: string, name: string): unknown {
  try {
    return manyDigits.test(text) ? json.parse(text, reviveWideNumbers) : JSON.parse(text);
  } catch (error) {
    if (!(error instanceof SyntaxError)) throw error;
    const found = jsonError(text);
    const what = found === undefined ? error.message : `line ${found.line}, column ${found.column}: ${found.problem}`;
    throw new HuskError("invalid-argument", `${name}: ${what}`);
  }
}

/** The inverse of parseJson. */
export function stringifyJson(value: unknown): string {
  return JSON.stringify(value, (_key, each: unknown) => (typeof each === "bigint" ? json.rawJSON(String(each)) : each));
}

function reviveWideNumbers(_key: string, value: unknown, context: { readonly source?: string }): unknown {
  if (typeof value !== "number" || Number.isSafeInteger(value) || context.source === undefined) return value;
  return /^-?\d{1,20}$/.test(context.source) ? BigInt(context.source) : value;
}
