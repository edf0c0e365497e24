/**
 * The runtime under test: ./bin/husk, or what HUSK_RUNTIME names. Its words and flags are runc's, so HUSK_RUNTIME=runc runs the same tests with runc,
 * which proves the tests themselves.
 */
import { basename, resolve } from "node:path";

const named = process.env["HUSK_RUNTIME"];

export const program = named === undefined ? resolve(import.meta.dirname, "../../bin/husk") : named;

/** False: the tests of what husk alone has are left out. */
export const isHusk = basename(program) !== "runc";

/** Flags that every call gets first, such as HUSK_FLAGS="--debug". */
export const globalFlags = (process.env["HUSK_FLAGS"] ?? "").split(" ").filter(Boolean);

/** What differs between the two: the words of their messages. */
export function either<T>(words: { readonly husk: T; readonly runc: T }): T {
  return isHusk ? words.husk : words.runc;
}
