/** The agent's errors in husk's words. */
import { type ServiceError, status } from "@grpc/grpc-js";
import { type ErrorCode, GrpcCode, HuskError } from "../errors.ts";
import { GrpcError } from "./bulk-status.ts";

/** The classes that the agent names in the metadata "husk-error" (proto/agent/v1/agent.proto). */
const codeOfClass: Readonly<Record<string, ErrorCode>> = {
  "program-not-found": "program-not-found",
  "program-not-executable": "program-not-executable",
  "user-not-found": "invalid-argument",
  "cwd-not-found": "invalid-argument",
  "container-not-found": "not-found",
  "process-not-found": "not-found",
  "already-exists": "already-exists",
  "wrong-state": "wrong-state",
  "spec-unsupported": "unsupported",
  "mount-failed": "setup",
  "hook-failed": "hook",
};

/** A guest's message is shown to users: one line, bounded, without control characters. */
const maxMessageLength = 1000;

/** Turns how a call of `method` ended, by grpc-js's words or a bulk call's, into an error of husk. */
export function agentError(method: string, ended: ServiceError | GrpcError): HuskError {
  const error = ended instanceof GrpcError ? ended : fromLibrary(ended);
  const { errorClass = "" } = error;
  const code = Object.hasOwn(codeOfClass, errorClass) ? codeOfClass[errorClass] : undefined;
  const message = error.message.replaceAll(/[\x00-\x1f\x7f]+/g, " ").slice(0, maxMessageLength);
  if (code !== undefined) return new HuskError(code, message);
  switch (error.code) {
    case GrpcCode.deadlineExceeded:
      return new HuskError("deadline", `the guest did not answer ${method} in time`);
    case GrpcCode.unavailable:
    case GrpcCode.canceled:
      return new HuskError("guest", `the guest's agent is gone (${method})`, { cause: new Error(message) });
    case GrpcCode.invalidArgument:
      return new HuskError("invalid-argument", message);
    default:
      return new HuskError("guest", `the guest's agent failed ${method}: ${message === "" ? status[error.code] : message}`);
  }
}

function fromLibrary({ code, details, metadata }: ServiceError): GrpcError {
  const [errorClass] = metadata?.get("husk-error") ?? [];
  // The two that the agent's side encodes, and grpc-js, which takes the message for a URI, leaves as they are.
  const message = details.replaceAll("%3F", "?").replaceAll("%23", "#");
  return new GrpcError(code, message, errorClass === undefined ? undefined : String(errorClass));
}
