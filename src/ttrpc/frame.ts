/**
 * ttrpc's frames (PROTOCOL.md of github.com/containerd/ttrpc), big-endian:
 *
 *     length of the data: u32 | stream: u32 | type: u8 | flags: u8 | data
 *
 * Reading holds at most one frame of bounded length, however the bytes are cut into chunks.
 */
import { GrpcCode } from "../errors.ts";
import { TtrpcError } from "./ttrpc-error.ts";

const headerBytes = 10;

/** The longest data that may be sent or is taken. */
export const maxDataBytes = 4 * 1024 * 1024;

/** The protocol keeps the length's first byte zero: whoever announces more does not speak ttrpc. */
const maxLength = 2 ** 24 - 1;

export const FrameType = { request: 1, response: 2, data: 3 } as const;

/** A frame's flags, from the point of view of whom they are sent to. */
export const Flag = {
  /** The sender has sent all. */
  remoteClosed: 1,
  /** In a request: the sender goes on with data. */
  remoteOpen: 2,
  /** The frame carries no message, not even an empty one. */
  noData: 4,
} as const;

export interface Frame {
  readonly streamId: number;
  /** One of `FrameType`, or one of a later version of the protocol, to be ignored. */
  readonly type: number;
  readonly flags: number;
  /** How long the sender's data was, in bytes. */
  readonly length: number;
  /** The data; undefined where it was longer than `maxDataBytes` and so was read past. It may share memory with the chunk it came in. */
  readonly data: Buffer | undefined;
}

/** Throws `resourceExhausted` where the data is longer than `maxDataBytes`. */
export function encodeFrame(streamId: number, type: number, flags: number, data: Uint8Array): Buffer {
  if (data.length > maxDataBytes) throw tooLong(data.length);
  const frame = Buffer.allocUnsafe(headerBytes + data.length);
  frame.writeUInt32BE(data.length, 0);
  frame.writeUInt32BE(streamId, 4);
  frame.writeUInt8(type, 8);
  frame.writeUInt8(flags, 9);
  frame.set(data, headerBytes);
  return frame;
}

/** The error for a frame of that many bytes of data, in the words of Go's ttrpc. */
export function tooLong(length: number): TtrpcError {
  return new TtrpcError(GrpcCode.resourceExhausted, `message length ${length} exceed maximum message size of ${maxDataBytes}`);
}

/** The frame whose header has been read. */
interface OpenFrame {
  readonly streamId: number;
  readonly type: number;
  readonly flags: number;
  readonly length: number;
}

/** Cuts a byte stream into frames. */
export class FrameParser {
  readonly #header = Buffer.alloc(headerBytes);
  #open: OpenFrame | undefined;
  /** Where the data is put together that comes in more than one chunk. */
  #data: Buffer | undefined;
  /** How many bytes of the header, or of the open frame's data, have been read. */
  #filled = 0;

  /** The frames that `chunk` completes. Throws a TtrpcError where the stream is no ttrpc; nothing can be read from it after that. */
  *push(chunk: Buffer): Generator<Frame, void, void> {
    let rest = chunk;
    for (;;) {
      const open = this.#open ?? this.#readHeader(rest);
      if (open === undefined) return;
      if (this.#open === undefined) {
        rest = rest.subarray(headerBytes - this.#filled);
        this.#open = open;
        this.#filled = 0;
      }
      const part = rest.subarray(0, open.length - this.#filled);
      rest = rest.subarray(part.length);
      const data = this.#take(open, part);
      if (this.#filled < open.length) return;
      this.#open = undefined;
      this.#data = undefined;
      this.#filled = 0;
      yield { ...open, data };
    }
  }

  /** The header, once `rest` completes it; `#filled` still says how much of it had come before. */
  #readHeader(rest: Buffer): OpenFrame | undefined {
    const copied = rest.copy(this.#header, this.#filled);
    if (this.#filled + copied < headerBytes) {
      this.#filled += copied;
      return undefined;
    }
    const length = this.#header.readUInt32BE(0);
    if (length > maxLength)
      throw new TtrpcError(GrpcCode.internal, `the peer does not speak ttrpc: it announced a frame of ${length} bytes`);
    return { length, streamId: this.#header.readUInt32BE(4), type: this.#header.readUInt8(8), flags: this.#header.readUInt8(9) };
  }

  /** Adds `part` to the open frame's data, and gives what there is of it. */
  #take(open: OpenFrame, part: Buffer): Buffer | undefined {
    const begin = this.#filled;
    this.#filled += part.length;
    if (open.length > maxDataBytes) return undefined;
    if (part.length === open.length) return part;
    this.#data ??= Buffer.allocUnsafe(open.length);
    part.copy(this.#data, begin);
    return this.#data;
  }
}
