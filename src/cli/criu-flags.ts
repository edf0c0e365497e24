/** Flags of runc's checkpoint and restore that are CRIU's: those without a meaning for a whole virtual machine, and those that are refused. */
import { HuskError } from "../errors.ts";

type Flags = Readonly<Record<string, boolean | number | string | readonly string[] | undefined>>;

const withoutMeaning = ["work-path", "tcp-established", "ext-unix-sk", "shell-job", "file-locks", "manage-cgroups-mode", "empty-ns"];

/** The flags that were given and mean nothing here, as they are written; `more`: besides those that all have. */
export function meaninglessCriuFlags(flags: Flags, more: readonly string[] = []): string[] {
  return [...withoutMeaning, ...more].filter((name) => isGiven(flags[name])).map((name) => `--${name}`);
}

/** Throws `unsupported` for the first of `names` that was given. */
export function refuseCriuFlags(flags: Flags, names: readonly string[]): void {
  const name = names.find((one) => isGiven(flags[one]));
  if (name === undefined) return;
  throw new HuskError("unsupported", `--${name} is not supported: a checkpoint is a whole virtual machine's, written and restored at once`);
}

function isGiven(value: Flags[string]): boolean {
  return Array.isArray(value) ? value.length > 0 : value !== undefined && value !== false;
}
