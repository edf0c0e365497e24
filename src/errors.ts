/**
 * Every error that husk raises on purpose, and the one mapping of their codes to exit statuses and to gRPC's and ttrpc's codes.
 *
 * An error says what failed, on what, why, and what to do, in one line; the cause's text is never repeated in it, since the
 * chain is printed once, by `explain`. Codes are stable: programs may match on them.
 */

/** The codes that gRPC and ttrpc answer with: https://grpc.io/docs/guides/status-codes/ */
export const GrpcCode = {
  ok: 0,
  canceled: 1,
  unknown: 2,
  invalidArgument: 3,
  deadlineExceeded: 4,
  notFound: 5,
  alreadyExists: 6,
  permissionDenied: 7,
  resourceExhausted: 8,
  failedPrecondition: 9,
  aborted: 10,
  outOfRange: 11,
  unimplemented: 12,
  internal: 13,
  unavailable: 14,
  dataLoss: 15,
  unauthenticated: 16,
} as const;

interface Meaning {
  /** What `husk run` ends with. 125: husk itself failed, as `docker run` has it. */
  readonly exit: number;
  /**
   * What containerd is told. It draws conclusions from these: a task that is "unavailable" or "not found" is a task that is gone. So what
   * says neither stays unknown, and the text speaks.
   */
  readonly grpc: number;
}

/** The stable codes, and what each means to the outside. */
export const meaningOf = {
  /** The bundle, the spec or a flag is wrong, or asks what a virtual machine cannot give. */
  "invalid-argument": { exit: 125, grpc: GrpcCode.invalidArgument },
  unsupported: { exit: 125, grpc: GrpcCode.unimplemented },
  "not-found": { exit: 1, grpc: GrpcCode.notFound },
  "already-exists": { exit: 1, grpc: GrpcCode.alreadyExists },
  /** The container is in a state that does not allow the operation. */
  "wrong-state": { exit: 1, grpc: GrpcCode.failedPrecondition },
  /** args[0] is there but cannot be executed. */
  "program-not-executable": { exit: 126, grpc: GrpcCode.unknown },
  "program-not-found": { exit: 127, grpc: GrpcCode.unknown },
  /** A hook failed: as with runc, an ordinary failure. */
  hook: { exit: 1, grpc: GrpcCode.unknown },
  /** The guest's kernel does not take a mount that the bundle asks for: as with runc, an ordinary failure. */
  setup: { exit: 1, grpc: GrpcCode.unknown },
  /** The host lacks something: QEMU, a device, memory, disk space. */
  host: { exit: 125, grpc: GrpcCode.unknown },
  /** QEMU failed, or said no over QMP. */
  vmm: { exit: 125, grpc: GrpcCode.unknown },
  /** The guest failed, did not answer in time, or answered nonsense. */
  guest: { exit: 125, grpc: GrpcCode.unknown },
  deadline: { exit: 125, grpc: GrpcCode.deadlineExceeded },
  internal: { exit: 125, grpc: GrpcCode.unknown },
} as const satisfies Readonly<Record<string, Meaning>>;

export type ErrorCode = keyof typeof meaningOf;

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

/** The exit status that stands for an error where it is otherwise the container's. */
export function exitStatus(error: unknown): number {
  return error instanceof HuskError ? meaningOf[error.code].exit : 125;
}

/** The exit status of an exec that failed, whatever the reason: runc's, since a program's own status is seldom that. */
export const execFailed = 255;

/** The gRPC code that stands for an error; unknown for what was not raised on purpose. */
export function grpcCode(error: unknown): number {
  return error instanceof HuskError ? meaningOf[error.code].grpc : GrpcCode.unknown;
}

/** The error code that a peer's gRPC code stands for; internal where there is none of that meaning. */
export function errorCodeOf(grpc: number): ErrorCode {
  if (grpc === GrpcCode.unknown) return "internal"; // shared by many
  const found = Object.entries(meaningOf).find(([, meaning]) => meaning.grpc === grpc);
  return found === undefined ? "internal" : (found[0] as ErrorCode);
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
