/**
 * D-Bus's types: https://dbus.freedesktop.org/doc/dbus-specification.html#type-system
 *
 *     b: boolean | y n q i u d: number | x t: bigint | s o g: string | v: Variant | a...: a list | (...) and {..}: a list of the members
 */

/** A value of any type; which one, its signature says. */
export type DbusValue = boolean | number | bigint | string | Variant | readonly DbusValue[];

/** A value that carries its type. */
export interface Variant {
  readonly signature: string;
  readonly value: DbusValue;
}

/** The peer does not speak D-Bus, or a value is not of the type that it is sent as. */
export class DbusFormatError extends Error {
  override readonly name = "DbusFormatError";
}

/** What the peer answered to a call instead of a reply. */
export class DbusCallError extends Error {
  override readonly name = "DbusCallError";
  /** Such as "org.freedesktop.systemd1.NoSuchUnit". */
  readonly errorName: string;

  constructor(errorName: string, message: string) {
    super(message === "" ? errorName : message);
    this.errorName = errorName;
  }
}

/** How a value of each type is aligned in a message, in bytes. */
const alignments: Readonly<Record<string, number>> = {
  y: 1,
  b: 4,
  n: 2,
  q: 2,
  i: 4,
  u: 4,
  x: 8,
  t: 8,
  d: 8,
  s: 4,
  o: 4,
  g: 1,
  a: 4,
  v: 1,
  "(": 8,
  "{": 8,
};

/** The alignment of a type, which its first letter decides. Throws a DbusFormatError for a letter that is no type. */
export function alignmentOf(type: string): number {
  return alignments[type[0] ?? ""] ?? unknownType(type);
}

/** The specification's own bound on how types are nested. */
const maxDepth = 64;

/** The complete types that a signature names: "sa(sv)u" is s, a(sv) and u. Throws a DbusFormatError where it is none. */
export function splitSignature(signature: string): string[] {
  const types: string[] = [];
  for (let begin = 0; begin < signature.length; ) {
    const end = endOfType(signature, begin, 0);
    types.push(signature.slice(begin, end));
    begin = end;
  }
  return types;
}

function endOfType(signature: string, begin: number, depth: number): number {
  const letter = signature[begin] ?? "";
  if (depth > maxDepth || alignments[letter] === undefined) return unknownType(signature);
  if (letter === "a") return endOfType(signature, begin + 1, depth + 1);
  if (letter !== "(" && letter !== "{") return begin + 1;
  const closing = letter === "(" ? ")" : "}";
  let end = endOfType(signature, begin + 1, depth + 1); // one without members is no type
  while (signature[end] !== closing) end = endOfType(signature, end, depth + 1);
  return end + 1;
}

function unknownType(signature: string): never {
  throw new DbusFormatError(`${JSON.stringify(signature.slice(0, 64))} is no D-Bus signature`);
}
