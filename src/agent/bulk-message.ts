/**
 * gRPC's messages on a stream: each is a byte that says whether it is compressed, its length in four bytes, and the message.
 * https://github.com/grpc/grpc/blob/master/doc/PROTOCOL-HTTP2.md ("Length-Prefixed-Message")
 */
import { HuskError } from "../errors.ts";

/** The largest message either way: a spec is bounded at 4 MiB, a chunk of output at 1 MiB. */
export const maxMessageBytes = 8 * 1024 * 1024;

const prefixBytes = 5;

/** Tag and wire type of a message's field 1 that holds bytes (https://protobuf.dev/programming-guides/encoding/). */
const firstFieldTag = (1 << 3) | 2;

/** Tag and wire type of a field 2 that holds a switch: a message of nothing else that says yes is these two bytes. */
const lastWord = [2 << 3, 1] as const;

/** A length of at most `maxMessageBytes` has no more bytes than this. */
const longestLength = 4;

/** What a stream's chunks are fed to. `feed` throws `guest` where they are not what the guest is to send. */
export interface MessageReader {
  feed(chunk: Buffer): void;
  /** Whether nothing of a message is missing. */
  readonly whole: boolean;
}

/** A message as it goes out. */
export function framed(message: Uint8Array): Buffer {
  const frame = Buffer.allocUnsafe(prefixBytes + message.length);
  writePrefix(frame, message.length);
  frame.set(message, prefixBytes);
  return frame;
}

/** What comes before `data` where a message is nothing but a field of bytes: who writes it before `data` need not copy `data`. */
export function bytesHead(field: number, data: Uint8Array): Buffer {
  const length = [];
  let left = data.length;
  for (; left > 0x7f; left >>>= 7) length.push((left & 0x7f) | 0x80);
  length.push(left);
  const head = Buffer.from([0, 0, 0, 0, 0, (field << 3) | 2, ...length]);
  writePrefix(head, head.length - prefixBytes + data.length);
  return head;
}

function writePrefix(frame: Buffer, length: number): void {
  frame[0] = 0;
  frame.writeUInt32BE(length, 1);
}

/** Puts whole messages together. */
export class WholeMessages implements MessageReader {
  readonly #onMessage: (message: Buffer) => void;
  readonly #parts: Buffer[] = [];
  #held = 0;

  constructor(onMessage: (message: Buffer) => void) {
    this.#onMessage = onMessage;
  }

  get whole(): boolean {
    return this.#held === 0;
  }

  feed(chunk: Buffer): void {
    this.#parts.push(chunk);
    this.#held += chunk.length;
    while (this.#held >= prefixBytes) {
      const length = readPrefix(this.#gather(prefixBytes));
      if (this.#held < prefixBytes + length) return;
      const message = this.#gather(prefixBytes + length).subarray(prefixBytes, prefixBytes + length);
      this.#drop(prefixBytes + length);
      this.#onMessage(message);
    }
  }

  /** The first chunk, with at least `count` bytes in it. */
  #gather(count: number): Buffer {
    const [first] = this.#parts;
    if (first !== undefined && first.length >= count) return first;
    const all = Buffer.concat(this.#parts);
    this.#parts.splice(0, this.#parts.length, all);
    return all;
  }

  #drop(count: number): void {
    const [first] = this.#parts;
    if (first === undefined) return;
    this.#held -= count;
    if (first.length === count) this.#parts.shift();
    else this.#parts[0] = first.subarray(count);
  }
}

/**
 * Passes on the bytes of messages that have one field, number 1, of bytes: each piece as it comes, and where it lies. Putting the messages of bulk output
 * together first costs as much as all the rest of carrying it. In its place a message may have a switch, number 2, that is on: a last word.
 */
export class BytesMessages implements MessageReader {
  readonly #onBytes: (bytes: Buffer) => void;
  readonly #onLastWord: () => void;
  /** The beginning of a message as far as it is there: gRPC's prefix, the field's tag and length. */
  readonly #head = Buffer.alloc(prefixBytes + 1 + longestLength);
  #headBytes = 0;
  /** How much of the field is still to come. */
  #left = 0;

  constructor(onBytes: (bytes: Buffer) => void, onLastWord: () => void = () => {}) {
    this.#onBytes = onBytes;
    this.#onLastWord = onLastWord;
  }

  get whole(): boolean {
    return this.#headBytes === 0 && this.#left === 0;
  }

  feed(chunk: Buffer): void {
    for (let at = 0; at < chunk.length; ) {
      if (this.#left === 0) {
        this.#readHead(chunk[at] ?? 0);
        at += 1;
      } else {
        const bytes = chunk.subarray(at, at + this.#left);
        at += bytes.length;
        this.#left -= bytes.length;
        this.#onBytes(bytes);
      }
    }
  }

  #readHead(byte: number): void {
    const index = this.#headBytes;
    this.#head[index] = byte;
    this.#headBytes = index + 1;
    if (this.#headBytes < prefixBytes) return;
    if (this.#headBytes === prefixBytes) {
      if (readPrefix(this.#head) === 0) this.#headBytes = 0; // a message of no bytes
    } else if (this.#headBytes === prefixBytes + 1) {
      if (byte !== firstFieldTag && byte !== lastWord[0]) throw unreadable("a message of other than bytes");
    } else if (this.#head[prefixBytes] === lastWord[0]) {
      if (byte !== lastWord[1] || readPrefix(this.#head) !== lastWord.length) throw unreadable("a last word that is none");
      this.#headBytes = 0;
      this.#onLastWord();
    } else if (byte < 0x80) {
      this.#startField();
    } else if (this.#headBytes === this.#head.length) {
      throw unreadable("a length that has no end");
    }
  }

  #startField(): void {
    let length = 0;
    for (let index = this.#headBytes - 1; index > prefixBytes; index--) length = (length << 7) | ((this.#head[index] ?? 0) & 0x7f);
    if (this.#headBytes - prefixBytes + length !== readPrefix(this.#head)) throw unreadable("a message whose lengths do not agree");
    this.#headBytes = 0;
    this.#left = length;
  }
}

/** The length of the message whose prefix `bytes` begins with. */
function readPrefix(bytes: Buffer): number {
  if (bytes[0] !== 0) throw unreadable("a message that is compressed");
  const length = bytes.readUInt32BE(1);
  if (length > maxMessageBytes) throw unreadable(`a message of ${length} bytes, more than ${maxMessageBytes}`);
  return length;
}

function unreadable(what: string): HuskError {
  return new HuskError("guest", `the guest's agent sent ${what}`);
}
