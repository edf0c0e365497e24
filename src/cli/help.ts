/** The help texts, made from the tables that also parse the command line. */
import type { Flag, FlagTable } from "./flags.ts";
import { globalFlags } from "./globals.ts";
import type { Verb } from "./verb.ts";
import { type VerbName, verbNames, verbs } from "./verbs.ts";

/** The help of a verb, or of husk itself. */
export function helpText(name: VerbName | undefined): string {
  return name === undefined ? ownHelp() : verbHelp(name, verbs[name]);
}

function ownHelp(): string {
  const width = Math.max(...verbNames.map((name) => name.length));
  return `husk - run every container in a small virtual machine of its own

Usage: husk [global flags] <command> [flags] [arguments]

Commands:
${verbNames.map((name) => `  ${name.padEnd(width)}  ${verbs[name].summary}`).join("\n")}

Global flags:
${flagLines(globalFlags)}

Examples:
  # Make a bundle from a folder with a root file system, and run it
  mkdir box && cp -a ROOTFS box/rootfs && husk spec -b box && husk run -b box first

  # What can this host do?
  husk doctor

\`husk <command> --help\` says more of each command.
`;
}

function verbHelp(name: VerbName, verb: Verb): string {
  const usage = ["husk [global flags]", name, "[flags]", verb.operands].filter((part) => part !== "").join(" ");
  const flags: FlagTable = { ...verb.flags, help: { kind: "switch", short: "h", help: "print this help" } };
  const examples = verb.examples.map(([purpose, command]) => `${purpose === "" ? "" : `  # ${purpose}\n`}  ${command}`);
  return `${[
    `husk ${name} - ${verb.summary}`,
    `Usage: ${usage}`,
    ...(verb.description === undefined ? [] : [verb.description]),
    `Flags:\n${flagLines(flags)}`,
    `Examples:\n${examples.join("\n\n")}`,
    "Global flags: see `husk --help`.",
  ].join("\n\n")}\n`;
}

function flagLines(table: FlagTable): string {
  const rows = Object.entries(table).map(([name, flag]): [string, string] => [spellBoth(name, flag), flag.help]);
  const width = Math.max(...rows.map(([flag]) => flag.length));
  return rows.map(([flag, help]) => `  ${flag.padEnd(width)}  ${help}`).join("\n");
}

function spellBoth(name: string, { short, value }: Flag): string {
  return `${short === undefined ? "    " : `-${short}, `}--${name}${value === undefined ? "" : ` ${value}`}`;
}
