import { type ErrorOptions, errorCodeOf, HuskError } from "../errors.ts";

/** A call that failed, or is to fail, with a code of its own choice (`GrpcCode`). */
export class TtrpcError extends HuskError {
  override readonly name = "TtrpcError";
  readonly grpcCode: number;

  constructor(grpcCode: number, message: string, options: ErrorOptions = {}) {
    super(errorCodeOf(grpcCode), message, options);
    this.grpcCode = grpcCode;
  }
}
