/** Values on their way into a message, little-endian: https://dbus.freedesktop.org/doc/dbus-specification.html#message-protocol-marshaling */
import { alignmentOf, DbusFormatError, type DbusValue, splitSignature, type Variant } from "./types.ts";

/** Grows as it is written to. Alignment counts from its beginning, so a message's body is written by a writer of its own. */
export class Writer {
  #buffer = Buffer.alloc(256);
  #length = 0;

  /** What was written so far. */
  get bytes(): Buffer {
    return this.#buffer.subarray(0, this.#length);
  }

  /** Writes a value of each type in `signature`. Throws a DbusFormatError where the values are of others. */
  write(signature: string, values: readonly DbusValue[]): void {
    const types = splitSignature(signature);
    if (types.length !== values.length) throw new DbusFormatError(`the signature "${signature}" is not that of ${values.length} values`);
    for (const [index, type] of types.entries()) this.#value(type, values[index]);
  }

  align(bytes: number): void {
    this.#room((bytes - (this.#length % bytes)) % bytes);
  }

  #value(type: string, value: DbusValue | undefined): void {
    this.align(alignmentOf(type));
    switch (type[0]) {
      case "y":
        return this.#number(1, (offset, number) => this.#buffer.writeUInt8(number, offset), value);
      case "n":
        return this.#number(2, (offset, number) => this.#buffer.writeInt16LE(number, offset), value);
      case "q":
        return this.#number(2, (offset, number) => this.#buffer.writeUInt16LE(number, offset), value);
      case "i":
        return this.#number(4, (offset, number) => this.#buffer.writeInt32LE(number, offset), value);
      case "u":
        return this.#number(4, (offset, number) => this.#buffer.writeUInt32LE(number, offset), value);
      case "d":
        return this.#number(8, (offset, number) => this.#buffer.writeDoubleLE(number, offset), value);
      case "b":
        if (typeof value !== "boolean") return wrong(type, value);
        return this.#number(4, (offset, number) => this.#buffer.writeUInt32LE(number, offset), value ? 1 : 0);
      case "x":
        return this.#bigint((offset, number) => this.#buffer.writeBigInt64LE(number, offset), value);
      case "t":
        return this.#bigint((offset, number) => this.#buffer.writeBigUInt64LE(number, offset), value);
      case "s":
      case "o":
        return this.#text(4, value);
      case "g":
        return this.#text(1, value);
      case "v":
        return this.#variant(value);
      case "a":
        return this.#array(type.slice(1), value);
      default:
        if (!Array.isArray(value)) return wrong(type, value);
        this.write(type.slice(1, -1), value as readonly DbusValue[]);
    }
  }

  #number(bytes: number, write: (offset: number, value: number) => void, value: DbusValue | undefined): void {
    if (typeof value !== "number") return wrong("a number's type", value);
    write(this.#room(bytes), value);
  }

  #bigint(write: (offset: number, value: bigint) => void, value: DbusValue | undefined): void {
    if (typeof value !== "bigint") return wrong("a 64-bit number's type", value);
    write(this.#room(8), value);
  }

  #text(lengthBytes: 1 | 4, value: DbusValue | undefined): void {
    if (typeof value !== "string" || value.includes("\0")) return wrong("a text's type", value);
    const text = Buffer.from(value);
    const at = this.#room(lengthBytes + text.length + 1); // a NUL follows
    this.#buffer.writeUIntLE(text.length, at, lengthBytes);
    text.copy(this.#buffer, at + lengthBytes);
  }

  #variant(value: DbusValue | undefined): void {
    if (typeof value !== "object" || !("signature" in value)) return wrong("v", value);
    const { signature, value: inner }: Variant = value;
    this.#text(1, signature);
    this.write(signature, [inner]);
  }

  /** The length in front of an array counts neither itself nor the padding before the first item. */
  #array(type: string, value: DbusValue | undefined): void {
    if (!Array.isArray(value)) return wrong(`a${type}`, value);
    const at = this.#room(4);
    this.align(alignmentOf(type));
    const begin = this.#length;
    for (const item of value as readonly DbusValue[]) this.#value(type, item);
    this.#buffer.writeUInt32LE(this.#length - begin, at);
  }

  /** Where the next `bytes` begin, all zero. */
  #room(bytes: number): number {
    const begin = this.#length;
    this.#length += bytes;
    if (this.#length > this.#buffer.length) {
      const larger = Buffer.alloc(2 * this.#length);
      this.#buffer.copy(larger, 0, 0, begin);
      this.#buffer = larger;
    }
    return begin;
  }
}

function wrong(type: string, value: DbusValue | undefined): never {
  throw new DbusFormatError(`${typeof value} is not of ${type}`);
}
