/** From the words of a command line to what is asked: global flags, the verb, its flags and its operands. */
import { nearest } from "../config/nearest.ts";
import { HuskError } from "../errors.ts";
import { type FlagTable, type FlagValues, parseFlags } from "./flags.ts";
import { type Globals, globalFlags, readGlobals } from "./globals.ts";
import type { Verb } from "./verb.ts";
import { type VerbName, type Verbs, verbNames, verbs } from "./verbs.ts";

/** A verb with its flags, ready to be carried out. */
export interface Invocation<Name extends VerbName> {
  readonly verb: Name;
  readonly globals: Globals;
  readonly flags: FlagValues<Verbs[Name]["flags"]>;
  readonly operands: readonly string[];
}

/** What a command line asks for. Help for undefined is husk's own. */
export type CommandLine = { readonly verb: "help"; readonly of: VerbName | undefined } | { [Name in VerbName]: Invocation<Name> }[VerbName];

/** A command line of which only the part before the verb has been read: enough to know where errors are logged. */
export interface Beginning {
  readonly globals: Globals;
  readonly asks: "help" | "version" | "verb";
  /** The verb and what follows it. */
  readonly words: readonly string[];
}

/** Reads the global flags, without the program's name before them. `cwd`: what relative paths begin with. Throws `invalid-argument` or `unsupported`. */
export function parseBeginning(args: readonly string[], cwd = "."): Beginning {
  const { flags, operands } = parseFlags(args, globalFlags, { verb: undefined, stopAtOperand: true });
  const asks = flags.help ? "help" : flags.version ? "version" : operands.length === 0 ? "help" : "verb";
  return { globals: readGlobals(flags, cwd), asks, words: operands };
}

/** Reads the rest. Throws `invalid-argument`. */
export function parseCommandLine({ globals, asks, words }: Beginning): CommandLine {
  const [word = "", ...rest] = words;
  if (asks === "help") return { verb: "help", of: undefined };
  if (asks === "version") return { verb: "version", globals, flags: {}, operands: [] };
  if (word === "help" || word === "h") return { verb: "help", of: rest[0] === undefined ? undefined : verbName(rest[0]) };
  return parseVerb(verbName(word), globals, rest);
}

function parseVerb(name: VerbName, globals: Globals, args: readonly string[]): CommandLine {
  const verb: Verb = verbs[name];
  const table: FlagTable = { ...verb.flags, help: { kind: "switch", short: "h", help: "print this help" } };
  const { flags, operands } = parseFlags(args, table, { verb: name, stopAtOperand: verb.stopAtOperand === true });
  if (flags["help"] === true) return { verb: "help", of: name };
  if (name === "ps" && operands.length > 1) {
    throw new HuskError("unsupported", `"ps" takes no options of ps(1): the processes are the guest's`, {
      hint: `husk exec ${operands[0]} ps ${operands.slice(1).join(" ")}`,
    });
  }
  checkCount(name, verb, operands.length);
  // The table is that of the verb, so the values are those of its flags.
  return { verb: name, globals, flags, operands } as unknown as CommandLine;
}

function verbName(word: string): VerbName {
  const known = verbNames.find((name) => name === word);
  if (known !== undefined) return known;
  const near = nearest(word, verbNames);
  throw new HuskError(
    "invalid-argument",
    `unknown command "${word}"${near === undefined ? "" : `; did you mean ${near}?`}`,
    near === undefined ? { hint: "see `husk --help`" } : {},
  );
}

function checkCount(name: VerbName, { count: [least, most], operands }: Verb, given: number): void {
  if (given >= least && given <= most) return;
  const wanted = least === most ? `exactly ${least}` : given < least ? `at least ${least}` : `at most ${most}`;
  throw new HuskError("invalid-argument", `"${name}" takes ${wanted} argument${wanted.endsWith(" 1") ? "" : "s"}, got ${given}`, {
    hint: `husk ${name} [flags]${operands === "" ? "" : ` ${operands}`}`,
  });
}
