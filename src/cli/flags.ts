/**
 * Command lines as programs in Go take them: `-flag`, `--flag`, `-flag=value`, `--flag value`; a switch may be given a value only after "=".
 * A table describes the flags of a verb: it is what parses them, and what prints them in the help.
 */
import { nearest } from "../config/nearest.ts";
import { HuskError } from "../errors.ts";

/** One flag. Its name is its key in the table. */
export interface Flag {
  readonly kind: "switch" | "text" | "list" | "number";
  /** A second, short name. */
  readonly short?: string;
  /** What the value is called in the help, such as "FILE". */
  readonly value?: string;
  /** One line, lower-case, without a full stop. */
  readonly help: string;
  /** Why it is refused, where it is. */
  readonly refused?: string;
}

/** A flag that other runtimes have, and that makes no sense here, or none yet: it is refused by name, with the reason. */
export function refusedFlag<const Kind extends Flag["kind"]>(kind: Kind, reason: string, value = "") {
  return { kind, help: `not supported: ${reason}`, refused: reason, ...(value === "" ? {} : { value }) } as const;
}

export type FlagTable = Readonly<Record<string, Flag>>;

/** What was given: switches are false where they were not, lists empty, texts and numbers undefined. */
export type FlagValues<T extends FlagTable> = { readonly [Name in keyof T]: FlagValue<T[Name]["kind"]> };

type FlagValue<Kind> = Kind extends "switch"
  ? boolean
  : Kind extends "list"
    ? readonly string[]
    : Kind extends "number"
      ? number | undefined
      : string | undefined;

export interface ParsedFlags<T extends FlagTable> {
  readonly flags: FlagValues<T>;
  readonly operands: readonly string[];
}

export interface ParseOptions {
  /** What messages say the flags are for: `"run"`; undefined for the global ones. */
  readonly verb: string | undefined;
  /** Whether the first operand ends the flags, since what follows is somebody else's command line. */
  readonly stopAtOperand: boolean;
}

/**
 * Parses `args`. Throws `invalid-argument` for an unknown flag, with the nearest one, and for a value that is missing or no good; `unsupported` for a flag that is
 * refused.
 */
export function parseFlags<T extends FlagTable>(args: readonly string[], table: T, options: ParseOptions): ParsedFlags<T> {
  const values: Record<string, boolean | number | string | string[] | undefined> = {};
  for (const [name, { kind }] of Object.entries(table)) values[name] = kind === "switch" ? false : kind === "list" ? [] : undefined;
  const operands: string[] = [];
  for (let index = 0; index < args.length; index++) {
    const arg = args[index] ?? "";
    if (arg === "--") {
      operands.push(...args.slice(index + 1));
      break;
    }
    if (arg === "-" || !arg.startsWith("-")) {
      if (options.stopAtOperand) {
        operands.push(...args.slice(index));
        break;
      }
      operands.push(arg);
      continue;
    }
    const [, given = "", attached] = /^--?([^=]*)(?:=(.*))?$/s.exec(arg) ?? [];
    const name = nameOf(table, given);
    const flag = name === undefined ? undefined : table[name];
    if (name === undefined || flag === undefined) throw unknownFlag(arg, table, options.verb);
    if (flag.refused !== undefined) throw new HuskError("unsupported", `--${name} is not supported: ${flag.refused}`);
    if (flag.kind === "switch") {
      values[name] = parseSwitch(name, attached);
      continue;
    }
    const value = attached ?? args[++index];
    if (value === undefined) throw new HuskError("invalid-argument", `flag --${name} needs a value${purpose(options.verb)}`);
    const before = values[name];
    if (flag.kind === "number") values[name] = parseNumber(name, value);
    else if (Array.isArray(before)) values[name] = [...before, value];
    else values[name] = value === "" ? undefined : value; // as if it were not given, as with Go programs
  }
  // Every name of T has got a value of its kind.
  return { flags: values as FlagValues<T>, operands };
}

/** How a flag is written: "-d" or "--detach". */
export function spell(name: string): string {
  return name.length === 1 ? `-${name}` : `--${name}`;
}

function nameOf(table: FlagTable, given: string): string | undefined {
  if (Object.hasOwn(table, given)) return given;
  return given === "" ? undefined : Object.keys(table).find((name) => table[name]?.short === given);
}

function parseSwitch(name: string, attached: string | undefined): boolean {
  if (attached === undefined) return true;
  // The words of Go's strconv.ParseBool.
  if (["1", "t", "T", "true", "TRUE", "True"].includes(attached)) return true;
  if (["0", "f", "F", "false", "FALSE", "False"].includes(attached)) return false;
  throw new HuskError("invalid-argument", `--${name}: expected true or false, got ${JSON.stringify(attached)}`);
}

function parseNumber(name: string, value: string): number {
  const number = Number(value);
  if (/^\d+$/.test(value) && Number.isSafeInteger(number)) return number;
  throw new HuskError("invalid-argument", `--${name}: expected a whole number, got ${JSON.stringify(value)}`);
}

function unknownFlag(arg: string, table: FlagTable, verb: string | undefined): HuskError {
  const [flag = arg] = arg.split("=", 1);
  if (verb === "kill" && /^-\d+$/.test(flag)) {
    return new HuskError(
      "invalid-argument",
      `unknown flag ${flag} for "kill"; the signal follows the id: husk kill <container-id> ${flag.slice(1)}`,
    );
  }
  const given = flag.replace(/^--?/, "");
  const letters = given.split("");
  const names = Object.entries(table).flatMap(([name, { short }]) => (short === undefined ? [name] : [name, short]));
  // "-td", as getopt(3) would read it; Go's programs do not.
  const joined = letters.length > 1 && flag[1] !== "-" && letters.every((letter) => names.includes(letter));
  const word = nearest(
    given,
    names.filter((name) => name.length > 1),
  );
  const near = joined ? letters.map(spell).join(" ") : word === undefined ? undefined : spell(word);
  const suggestion = near === undefined ? "" : `; did you mean ${near}?`;
  return new HuskError("invalid-argument", `unknown flag ${flag}${purpose(verb)}${suggestion}`);
}

function purpose(verb: string | undefined): string {
  return verb === undefined ? "" : ` for "${verb}"`;
}
