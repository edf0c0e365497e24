/**
 * Every error that husk raises on purpose, and the one mapping of their codes to exit statuses.
 *
 * An error says what failed, on what, why, and what to do, in one line; the cause's text is never repeated in it, since the
 * chain is printed once, by `explain`. Codes are stable: programs may match on them.
 */

/** The stable codes, and the exit status that the command line ends with for each. 125: husk itself failed, as `docker run` has it. */
export const exitStatusOf = {
  /** The bundle, the spec or a flag is wrong, or asks what a virtual machine cannot give. */
  "invalid-argument": 125,
  unsupported: 125,
  "not-found": 1,
  "already-exists": 1,
  /** The container is in a state that does not allow the operation. */
  "wrong-state": 1,
  /** args[0] is there but cannot be executed. */
  "program-not-executable": 126,
  "program-not-found": 127,
  /** The host lacks something: QEMU, a device, memory, disk space. */
  host: 125,
  /** QEMU failed, or said no over QMP. */
  vmm: 125,
  /** The guest failed, did not answer in time, or answered nonsense. */
  guest: 125,
  deadline: 125,
  internal: 125,
} as const;

export type ErrorCode = keyof typeof exitStatusOf;

export interface ErrorOptions {
  readonly cause?: unknown;
  /** What the reader can do about it: a command, a setting. Printed after the message. */
  readonly hint?: string;
}

/** The family of all errors raised on purpose. Anything else that reaches the top is a defect of husk. */
export class HuskError extends Error {
  override readonly name: string = "HuskError";
  readonly code: ErrorCode;
  readonly hint: string | undefined;

  constructor(code: ErrorCode, message: string, options: ErrorOptions = {}) {
    super(message, options.cause === undefined ? undefined : { cause: options.cause });
    this.code = code;
    this.hint = options.hint;
  }
}

/** The exit status that stands for an error. */
export function exitStatus(error: unknown): number {
  return error instanceof HuskError ? exitStatusOf[error.code] : 125;
}

/** The whole chain of causes in one line, outermost first, then the first hint on the way down. */
export function explain(error: unknown): string {
  const parts: string[] = [];
  let hint: string | undefined;
  for (let link: unknown = error, depth = 0; link !== undefined && depth < 16; depth++) {
    const text = link instanceof Error ? link.message : String(link);
    if (text !== "" && parts.at(-1) !== text) parts.push(text);
    if (link instanceof HuskError) hint ??= link.hint;
    link = link instanceof Error ? link.cause : undefined;
  }
  const line = parts.join(": ").replaceAll(/\s*\n\s*/g, " | ");
  return hint === undefined ? line : `${line} (${hint})`;
}
