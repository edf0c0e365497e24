import * as fc from "fast-check";
import { describe, expect, it } from "vitest";
import { decodeMessage, encodeMessage, type Message, MessageParser, MessageType, maxMessageBytes } from "./message.ts";
import { Reader } from "./reader.ts";
import { DbusFormatError, type DbusValue, splitSignature } from "./types.ts";
import { Writer } from "./writer.ts";

/** A type with a value of it. */
interface Typed {
  readonly signature: string;
  readonly value: DbusValue;
}

function typed(signature: string, values: fc.Arbitrary<DbusValue>): fc.Arbitrary<Typed> {
  return values.map((value) => ({ signature, value }));
}

const text = fc.string({ maxLength: 20 }).map((value) => value.replaceAll("\0", ""));
const basic = fc.oneof(
  typed("y", fc.integer({ min: 0, max: 255 })),
  typed("b", fc.boolean()),
  typed("n", fc.integer({ min: -(2 ** 15), max: 2 ** 15 - 1 })),
  typed("q", fc.integer({ min: 0, max: 2 ** 16 - 1 })),
  typed("i", fc.integer({ min: -(2 ** 31), max: 2 ** 31 - 1 })),
  typed("u", fc.integer({ min: 0, max: 2 ** 32 - 1 })),
  typed("x", fc.bigInt({ min: -(2n ** 63n), max: 2n ** 63n - 1n })),
  typed("t", fc.bigInt({ min: 0n, max: 2n ** 64n - 1n })),
  typed("d", fc.double({ noNaN: true })),
  typed("s", text),
  typed("o", text),
  typed("g", fc.constantFrom("", "s", "a{sv}")),
);
const { any } = fc.letrec<{ any: Typed }>((tie) => ({
  any: fc.oneof(
    { maxDepth: 3 },
    basic,
    tie("any").map((inner) => ({ signature: "v", value: { ...inner } })),
    fc
      .tuple(tie("any"), fc.nat(3))
      .map(([{ signature, value }, count]) => ({ signature: `a${signature}`, value: Array(count).fill(value) })),
    fc.array(tie("any"), { minLength: 1, maxLength: 3 }).map((members) => ({
      signature: `(${members.map(({ signature }) => signature).join("")})`,
      value: members.map(({ value }) => value),
    })),
  ),
}));

function bodyOf(values: readonly Typed[]): Pick<Message, "signature" | "body"> {
  return { signature: values.map(({ signature }) => signature).join(""), body: values.map(({ value }) => value) };
}

const message = fc
  .record({
    type: fc.integer({ min: 1, max: 4 }),
    serial: fc.integer({ min: 1, max: 2 ** 32 - 1 }),
    path: text,
    member: text,
    replySerial: fc.integer({ min: 1, max: 2 ** 32 - 1 }),
    values: fc.array(any, { maxLength: 3 }),
  })
  .map(({ values, ...head }) => ({ ...head, ...bodyOf(values) }));

function hex(bytes: Buffer): string {
  return bytes.toString("hex");
}

describe("messages", () => {
  it("are read as they were written, however the bytes are cut", () => {
    fc.assert(
      fc.property(fc.array(message, { maxLength: 3 }), fc.nat(40), (messages, cut) => {
        const bytes = Buffer.concat(messages.map(encodeMessage));
        const parser = new MessageParser();
        const step = cut + 1;
        const chunks = Array.from({ length: Math.ceil(bytes.length / step) }, (_, index) =>
          bytes.subarray(index * step, (index + 1) * step),
        );
        expect(chunks.flatMap((chunk) => [...parser.push(chunk)])).toEqual(messages);
      }),
    );
  });

  it("are those of the specification", () => {
    const hello = {
      type: MessageType.call,
      serial: 1,
      path: "/org/freedesktop/DBus",
      interface: "org.freedesktop.DBus",
      member: "Hello",
      destination: "org.freedesktop.DBus",
      signature: "",
      body: [],
    };
    // Put together by hand: the fixed part, the fields' 109 bytes, each field at a multiple of 8, and the padding behind them.
    expect(hex(encodeMessage(hello))).toBe(
      [
        "6c01000100000000010000006d000000",
        `01016f0015000000${hex(Buffer.from("/org/freedesktop/DBus"))}000000`,
        `0201730014000000${hex(Buffer.from("org.freedesktop.DBus"))}00000000`,
        `0301730005000000${hex(Buffer.from("Hello"))}000000`,
        `0601730014000000${hex(Buffer.from("org.freedesktop.DBus"))}00000000`,
      ].join(""),
    );
  });

  it("align what they hold, and count an array's items alone", () => {
    const writer = new Writer();
    writer.write("ya(sv)", [7, [["MemoryMax", { signature: "t", value: 64n }]]]);
    // A byte, padding to 4, the array's 33 bytes, padding to 8, then "MemoryMax", "t", padding to 8, and the number.
    expect(hex(writer.bytes)).toBe(
      ["0700000020000000", "09000000", hex(Buffer.from("MemoryMax")), "00", "017400", "00".repeat(7), "4000000000000000"].join(""),
    );
  });

  it("never hang, nor throw anything else, whatever the bytes are", () => {
    fc.assert(
      fc.property(fc.uint8Array({ maxLength: 200 }), fc.constantFrom("a(sv)", "av", "aay", "(yv)s", "a{sv}t"), (bytes, signature) => {
        try {
          new Reader(Buffer.from(bytes)).read(signature);
        } catch (error) {
          expect(error).toBeInstanceOf(DbusFormatError);
        }
      }),
    );
  });

  it.each(["a", "(", "()", "(s", "z", "a{", `${"a".repeat(70)}y`, "s)"])("refuse %j, which is no signature", (signature) => {
    expect(() => splitSignature(signature)).toThrow(DbusFormatError);
  });

  it("refuse values of other types than their signature's", () => {
    for (const [signature, value] of [
      ["s", 5],
      ["u", "5"],
      ["t", 5],
      ["b", 1],
      ["as", "x"],
      ["v", "x"],
      ["(s)", "x"],
      ["s", "a\0b"],
    ] as const) {
      expect(() => new Writer().write(signature, [value])).toThrow(DbusFormatError);
    }
    expect(() => new Writer().write("ss", ["one"])).toThrow('the signature "ss" is not that of 1 values');
  });

  it("refuse what is no D-Bus, and what is too long", () => {
    expect(() => [...new MessageParser().push(Buffer.from("HTTP/1.1 400 Bad Request"))]).toThrow("the peer does not speak D-Bus");
    const head = encodeMessage({ type: MessageType.reply, serial: 1, signature: "", body: [] });
    head.writeUInt32LE(maxMessageBytes, 4);
    expect(() => [...new MessageParser().push(head)]).toThrow(/^a message has \d+ bytes, more than 1048576$/);
  });

  it("leave out header fields of another type than theirs", () => {
    const bytes = encodeMessage({ type: MessageType.reply, serial: 1, path: "abcdefg", signature: "", body: [] });
    bytes.write("s", bytes.indexOf("o")); // an object's path becomes a text
    expect(decodeMessage(bytes)).toEqual({ type: MessageType.reply, serial: 1, signature: "", body: [] });
  });
});
