/** Values out of a message, which may be hostile: every length is checked against what there is. */
import { alignmentOf, DbusFormatError, type DbusValue, splitSignature } from "./types.ts";

/** How deep variants may hold variants: the specification's bound on all nesting. */
const maxDepth = 64;

export class Reader {
  readonly #bytes: Buffer;
  #at = 0;
  #depth = 0;

  /** Alignment counts from the beginning of `bytes`. */
  constructor(bytes: Buffer) {
    this.#bytes = bytes;
  }

  /** How many bytes have been read. */
  get position(): number {
    return this.#at;
  }

  /** Reads a value of each type in `signature`. Throws a DbusFormatError where there are none such. */
  read(signature: string): DbusValue[] {
    return splitSignature(signature).map((type) => this.#value(type));
  }

  align(bytes: number): void {
    this.#take((bytes - (this.#at % bytes)) % bytes);
  }

  #value(type: string): DbusValue {
    this.align(alignmentOf(type));
    switch (type[0]) {
      case "y":
        return this.#bytes.readUInt8(this.#take(1));
      case "b":
        return this.#bytes.readUInt32LE(this.#take(4)) !== 0;
      case "n":
        return this.#bytes.readInt16LE(this.#take(2));
      case "q":
        return this.#bytes.readUInt16LE(this.#take(2));
      case "i":
        return this.#bytes.readInt32LE(this.#take(4));
      case "u":
        return this.#bytes.readUInt32LE(this.#take(4));
      case "x":
        return this.#bytes.readBigInt64LE(this.#take(8));
      case "t":
        return this.#bytes.readBigUInt64LE(this.#take(8));
      case "d":
        return this.#bytes.readDoubleLE(this.#take(8));
      case "s":
      case "o":
        return this.#text(this.#bytes.readUInt32LE(this.#take(4)));
      case "g":
        return this.#text(this.#bytes.readUInt8(this.#take(1)));
      case "v":
        return this.#variant();
      case "a":
        return this.#array(type.slice(1));
      default:
        return this.read(type.slice(1, -1));
    }
  }

  #text(length: number): string {
    const begin = this.#take(length + 1); // a NUL follows
    return this.#bytes.toString("utf8", begin, begin + length);
  }

  #variant(): DbusValue {
    if (++this.#depth > maxDepth) throw new DbusFormatError("a message's variants are nested too deep");
    const signature = this.#text(this.#bytes.readUInt8(this.#take(1)));
    const [value, ...more] = this.read(signature);
    if (value === undefined || more.length > 0) throw new DbusFormatError("a variant holds no single value");
    this.#depth--;
    return { signature, value };
  }

  #array(type: string): DbusValue {
    const length = this.#bytes.readUInt32LE(this.#take(4));
    this.align(alignmentOf(type));
    const end = this.#at + length;
    if (end > this.#bytes.length) throw tooShort();
    const items: DbusValue[] = [];
    while (this.#at < end) items.push(this.#value(type));
    if (this.#at !== end) throw new DbusFormatError("an array's last item goes beyond its end");
    return items;
  }

  /** Where the next `bytes` begin. */
  #take(bytes: number): number {
    const begin = this.#at;
    if (begin + bytes > this.#bytes.length) throw tooShort();
    this.#at += bytes;
    return begin;
  }
}

function tooShort(): DbusFormatError {
  return new DbusFormatError("a message is shorter than what it holds");
}
