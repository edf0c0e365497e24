/** What a verb of the command line is: its flags, its operands and its help, as data. What it does is in a file of its own. */
import type { FlagTable } from "./flags.ts";

export interface Verb<T extends FlagTable = FlagTable> {
  /** One line, lower-case, without a full stop. */
  readonly summary: string;
  /** As in the usage line: `<container-id> [signal]`. */
  readonly operands: string;
  /** How many operands there may be: at least, at most. */
  readonly count: readonly [number, number];
  readonly flags: T;
  /** Whether what follows the first operand is another program's command line. */
  readonly stopAtOperand?: boolean;
  /** More than the summary, where there is more to say. */
  readonly description?: string;
  /** What it is for, and the command. */
  readonly examples: readonly (readonly [string, string])[];
}

/** Checks a verb's definition against the type and keeps its flags' names for the compiler. */
export function verb<const T extends FlagTable>(definition: Verb<T>): Verb<T> {
  return definition;
}
