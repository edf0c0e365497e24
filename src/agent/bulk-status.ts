/** How a call ended, as gRPC tells it: in headers of the answer's end, or by the stream's end. */
import { constants, type IncomingHttpHeaders } from "node:http2";
import { GrpcCode } from "../errors.ts";

/** A call that did not succeed. */
export class GrpcError extends Error {
  readonly code: number;
  /** What the agent calls its class, where it does (proto/agent/v1/agent.proto, "husk-error"). */
  readonly errorClass: string | undefined;

  constructor(code: number, message: string, errorClass?: string) {
    super(message);
    this.code = code;
    this.errorClass = errorClass;
  }
}

/** The status in an answer's headers or trailers; undefined where it succeeded, an error that says so where there is none. */
export function statusOf(headers: IncomingHttpHeaders | undefined): GrpcError | undefined {
  const status = text(headers?.["grpc-status"]);
  if (status === String(GrpcCode.ok)) return undefined;
  if (headers === undefined || !/^\d{1,2}$/.test(status)) return new GrpcError(GrpcCode.unknown, "the answer ended without a status");
  return new GrpcError(Number(status), decodeMessage(text(headers["grpc-message"])), text(headers["husk-error"]) || undefined);
}

/** What it means that a stream was reset. https://github.com/grpc/grpc/blob/master/doc/PROTOCOL-HTTP2.md ("Errors") */
export function resetStatus(code: number): GrpcError {
  const words = `the call's stream was reset with code ${code}`;
  switch (code) {
    case constants.NGHTTP2_CANCEL:
      return new GrpcError(GrpcCode.canceled, words);
    case constants.NGHTTP2_REFUSED_STREAM:
      return new GrpcError(GrpcCode.unavailable, words);
    case constants.NGHTTP2_ENHANCE_YOUR_CALM:
      return new GrpcError(GrpcCode.resourceExhausted, words);
    default:
      return new GrpcError(GrpcCode.internal, words);
  }
}

function text(header: string | string[] | undefined): string {
  return typeof header === "string" ? header : (header?.[0] ?? "");
}

/** A status's message is percent-encoded; one that is not is taken as it is. */
function decodeMessage(message: string): string {
  try {
    return decodeURIComponent(message);
  } catch {
    return message;
  }
}
