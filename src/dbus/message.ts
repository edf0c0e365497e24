/**
 * D-Bus's messages: https://dbus.freedesktop.org/doc/dbus-specification.html#message-protocol-messages
 *
 *     endianness: y | type: y | flags: y | version: y | length of the body: u | serial: u | header fields: a(yv) | padding to 8 | body
 */
import { Reader } from "./reader.ts";
import { DbusFormatError, type DbusValue, type Variant } from "./types.ts";
import { Writer } from "./writer.ts";

export const MessageType = { call: 1, reply: 2, error: 3, signal: 4 } as const;

/** The header's fields by their codes; all others are left out. */
const fieldNames = { 1: "path", 2: "interface", 3: "member", 4: "errorName", 5: "replySerial", 6: "destination", 7: "sender" } as const;
const fieldTypes = { path: "o", interface: "s", member: "s", errorName: "s", replySerial: "u", destination: "s", sender: "s" } as const;
const signatureField = 8;

type FieldName = keyof typeof fieldTypes;
type Fields = { readonly [Name in FieldName]?: (typeof fieldTypes)[Name] extends "u" ? number : string };

export interface Message extends Fields {
  /** One of MessageType, or one of a later version of the protocol, to be ignored. */
  readonly type: number;
  readonly serial: number;
  readonly signature: string;
  readonly body: readonly DbusValue[];
}

const littleEndian = "l".charCodeAt(0);
const protocolVersion = 1;

/** The part of the header whose size is known. */
const fixedBytes = 16;

/** The longest message that is taken: what systemd tells us is far below it. */
export const maxMessageBytes = 1024 * 1024;

/** Throws a DbusFormatError where the body is not of its signature. */
export function encodeMessage(message: Message): Buffer {
  const body = new Writer();
  body.write(message.signature, message.body);
  const fields: DbusValue[] = Object.entries(fieldNames).flatMap(([code, name]) => {
    const value = message[name];
    return value === undefined ? [] : [[Number(code), { signature: fieldTypes[name], value }]];
  });
  if (message.signature !== "") fields.push([signatureField, { signature: "g", value: message.signature }]);
  const head = new Writer();
  const { bytes } = body;
  head.write("yyyyuua(yv)", [littleEndian, message.type, 0, protocolVersion, bytes.length, message.serial, fields]);
  head.align(8);
  return Buffer.concat([head.bytes, bytes]);
}

/** Throws a DbusFormatError for what is no whole message. */
export function decodeMessage(bytes: Buffer): Message {
  const reader = new Reader(bytes);
  const [, type, , , , serial, fields] = reader.read("yyyyuua(yv)") as [
    number,
    number,
    number,
    number,
    number,
    number,
    [number, Variant][],
  ];
  reader.align(8);
  let signature = "";
  const known: Partial<Record<FieldName, DbusValue>> = {};
  for (const [code, { signature: fieldType, value }] of fields) {
    if (code === signatureField && typeof value === "string") signature = value;
    const name = (fieldNames as Readonly<Record<number, FieldName>>)[code];
    if (name !== undefined && fieldTypes[name] === fieldType) known[name] = value;
  }
  // Each of `known` is of the type that fieldTypes says.
  return { ...(known as Fields), type, serial, signature, body: new Reader(bytes.subarray(reader.position)).read(signature) };
}

/** Cuts a byte stream into messages, of which it never holds more than one of bounded length. */
export class MessageParser {
  #held: Buffer = Buffer.alloc(0);

  /** The messages that `chunk` completes. Throws a DbusFormatError where the stream is no D-Bus. */
  *push(chunk: Buffer): Generator<Message, void, void> {
    this.#held = this.#held.length === 0 ? chunk : Buffer.concat([this.#held, chunk]);
    for (let length = this.#nextLength(); length <= this.#held.length; length = this.#nextLength()) {
      const bytes = this.#held.subarray(0, length);
      this.#held = this.#held.subarray(length);
      yield decodeMessage(bytes);
    }
  }

  /** How long the next message is; that of its header's fixed part, where not even that is there. */
  #nextLength(): number {
    if (this.#held.length < fixedBytes) return fixedBytes;
    if (this.#held[0] !== littleEndian) throw new DbusFormatError("the peer does not speak D-Bus in little-endian");
    const length = fixedBytes + 8 * Math.ceil(this.#held.readUInt32LE(12) / 8) + this.#held.readUInt32LE(4);
    if (length > maxMessageBytes) throw new DbusFormatError(`a message has ${length} bytes, more than ${maxMessageBytes}`);
    return length;
  }
}
