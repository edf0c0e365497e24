/**
 * Errors as they are on the wire (google.rpc.Status), in containerd's convention: the message ends with the name of its class, as in
 * "container web: not found". containerd takes that off and puts it on again by the code, and prints it to users.
 */
import { explain, GrpcCode, grpcCode } from "../errors.ts";
import type { Status } from "../gen/google/rpc/status.ts";
import { TtrpcError } from "./ttrpc-error.ts";

/** containerd's errdefs; codes that are not here have no class. */
const classOf: ReadonlyMap<number, string> = new Map([
  [GrpcCode.canceled, "context canceled"],
  [GrpcCode.invalidArgument, "invalid argument"],
  [GrpcCode.deadlineExceeded, "context deadline exceeded"],
  [GrpcCode.notFound, "not found"],
  [GrpcCode.alreadyExists, "already exists"],
  [GrpcCode.failedPrecondition, "failed precondition"],
  [GrpcCode.unimplemented, "not implemented"],
  [GrpcCode.unavailable, "unavailable"],
]);

/** The longest message, either way: an error is a line, and must fit into a frame. */
const maxMessageLength = 4000;

/** What is sent for an error: a TtrpcError's own code, that of another error of husk (errors.ts), unknown for everything else. */
export function statusOf(error: unknown): Status {
  const code = error instanceof TtrpcError ? error.grpcCode : grpcCode(error);
  const text = explain(error).slice(0, maxMessageLength);
  const suffix = classOf.get(code);
  const said = suffix === undefined || text === suffix || text.endsWith(`: ${suffix}`);
  return { code, message: said ? text : `${text}: ${suffix}`, details: [] };
}

/** The error that a peer answered with; its message is one bounded line without control characters, and without the name of its class. */
export function errorOf(status: Status): TtrpcError {
  const line = status.message
    .slice(0, maxMessageLength)
    .replaceAll(/[\p{Cc}\p{Cf}\s]+/gu, " ")
    .trim();
  const suffix = `: ${classOf.get(status.code)}`;
  return new TtrpcError(status.code, line.endsWith(suffix) ? line.slice(0, -suffix.length) : line);
}
