/** What a client's connection knows of a call: how its frames are read, and how it fails. */
import { GrpcCode } from "../errors.ts";
import { Response as WireResponse } from "../gen/ttrpc/ttrpc.ts";
import { Flag, type Frame, FrameType, tooLong } from "./frame.ts";
import type { MessageQueue } from "./message-queue.ts";
import type { MethodDefinition } from "./service.ts";
import { errorOf } from "./status.ts";
import { TtrpcError } from "./ttrpc-error.ts";

export interface ClientCall {
  /** Takes a frame of this call's stream, and says whether the call is over. Throws where the server broke the protocol. */
  readonly receive: (frame: Frame) => boolean;
  readonly fail: (reason: Error) => void;
}

/** A call with one answer. */
export function singleAnswer(
  name: string,
  type: MethodDefinition["responseType"],
  answer: { readonly resolve: (message: unknown) => void; readonly reject: (reason: Error) => void },
): ClientCall {
  const receive = (frame: Frame): boolean => {
    if (frame.type !== FrameType.response) throw broken(name, "a stream, where one answer was expected");
    answer.resolve(type.decode(readResponse(frame)));
    return true;
  };
  return { receive: (frame) => reading(name, () => receive(frame)), fail: answer.reject };
}

/** A call with a stream of answers. */
export function streamedAnswers(name: string, type: MethodDefinition["responseType"], answers: MessageQueue<unknown>): ClientCall {
  const receive = (frame: Frame): boolean => {
    if (frame.type === FrameType.response) {
      const payload = readResponse(frame);
      // An empty response only ends the stream.
      if (payload.length > 0) answers.push(type.decode(payload), payload.length);
      answers.end();
      return true;
    }
    if ((frame.flags & Flag.noData) === 0) answers.push(type.decode(dataOf(frame)), frame.length);
    const over = (frame.flags & Flag.remoteClosed) !== 0;
    if (over) answers.end();
    return over;
  };
  return { receive: (frame) => reading(name, () => receive(frame)), fail: (reason) => answers.end(reason) };
}

/** A call whose answers nobody waits for. */
export const discarded: ClientCall = {
  receive: ({ type, flags }) => type === FrameType.response || (flags & Flag.remoteClosed) !== 0,
  fail: () => {},
};

/** The payload of a response; throws the error that the server answered with. */
function readResponse(frame: Frame): Buffer {
  const { status, payload } = WireResponse.decode(dataOf(frame));
  if (status !== undefined && status.code !== GrpcCode.ok) throw errorOf(status);
  return payload;
}

function dataOf({ data, length }: Frame): Buffer {
  if (data === undefined) throw tooLong(length);
  return data;
}

/** Reads what the server sent; throws `internal` where it cannot be read. */
function reading<T>(name: string, read: () => T): T {
  try {
    return read();
  } catch (cause) {
    if (cause instanceof TtrpcError) throw cause;
    throw new TtrpcError(GrpcCode.internal, `the answer to ${name} cannot be read`, { cause });
  }
}

function broken(name: string, what: string): TtrpcError {
  return new TtrpcError(GrpcCode.internal, `the server answered ${name} with ${what}`);
}
