import { array, assert, nat, property, uint8Array } from "fast-check";
import { expect, test } from "vitest";
import { ReadOutputResponse, WriteStdinRequest } from "../gen/agent/v1/agent.ts";
import { BytesMessages, bytesHead, framed, type MessageReader, maxMessageBytes, WholeMessages } from "./bulk-message.ts";

const bytes = uint8Array({ maxLength: 300 }).map((array) => Buffer.from(array));

/** Feeds `all` in pieces that end at `cuts`. */
function feedInPieces(reader: MessageReader, all: Buffer, cuts: readonly number[]): void {
  const ends = [...cuts.map((cut) => cut % (all.length + 1)), all.length].toSorted((a, b) => a - b);
  let from = 0;
  for (const end of ends) {
    reader.feed(all.subarray(from, end));
    from = end;
  }
}

function outputOf(data: Buffer): Buffer {
  return framed(ReadOutputResponse.encode({ data, processEnded: false }).finish());
}

test("messages come out as they went in, however the stream is cut", () => {
  assert(
    property(array(bytes), array(nat()), (messages, cuts) => {
      const read: Buffer[] = [];
      const reader = new WholeMessages((message) => read.push(Buffer.from(message)));
      feedInPieces(reader, Buffer.concat(messages.map(framed)), cuts);
      expect(read).toEqual(messages);
      expect(reader.whole).toBe(true);
    }),
  );
});

test("the bytes of outputs come in order, however the stream is cut, and empty messages are nothing", () => {
  assert(
    property(array(bytes), array(nat()), (outputs, cuts) => {
      const read: Buffer[] = [];
      const reader = new BytesMessages((piece) => read.push(Buffer.from(piece)));
      feedInPieces(reader, Buffer.concat(outputs.map(outputOf)), cuts);
      expect(Buffer.concat(read)).toEqual(Buffer.concat(outputs));
      expect(reader.whole).toBe(true);
    }),
  );
});

test("the last word of an output is told, however it is cut, and is no byte of it", () => {
  const all = Buffer.concat([
    outputOf(Buffer.from("out")),
    framed(ReadOutputResponse.encode({ data: Buffer.alloc(0), processEnded: true }).finish()),
  ]);
  for (let cut = 0; cut <= all.length; cut++) {
    const told: string[] = [];
    const reader = new BytesMessages(
      (piece) => told.push(String(piece)),
      () => told.push(", and no more"),
    );
    feedInPieces(reader, all, [cut]);
    expect(told.join("")).toBe("out, and no more");
    expect(reader.whole).toBe(true);
  }
});

test("the bytes of an output are not copied", () => {
  const chunk = outputOf(Buffer.alloc(100_000, 1));
  const read: Buffer[] = [];
  new BytesMessages((piece) => read.push(piece)).feed(chunk);
  expect(read.map(({ length }) => length)).toEqual([100_000]);
  expect(read[0]?.buffer).toBe(chunk.buffer);
});

test("a message of bytes may be written in two parts", () => {
  for (const length of [0, 1, 127, 128, 16_384, 1_048_576]) {
    const data = Buffer.alloc(length, 7);
    const message = Buffer.concat([bytesHead(3, data), data]);
    const read: WriteStdinRequest[] = [];
    new WholeMessages((one) => read.push(WriteStdinRequest.decode(one))).feed(message);
    expect(read).toEqual([{ containerId: "", processId: "", data }]);
  }
});

test("a stream that ends within a message is not whole", () => {
  const readers = [new WholeMessages(() => {}), new BytesMessages(() => {})];
  for (const reader of readers) {
    reader.feed(outputOf(Buffer.from("output")).subarray(0, -1));
    expect(reader.whole).toBe(false);
  }
});

test("what the guest must not send is refused", () => {
  const tooLong = Buffer.alloc(5);
  tooLong.writeUInt32BE(maxMessageBytes + 1, 1);
  for (const reader of [new WholeMessages(() => {}), new BytesMessages(() => {})]) {
    expect(() => reader.feed(tooLong)).toThrow(`sent a message of ${maxMessageBytes + 1} bytes, more than ${maxMessageBytes}`);
  }
  const refused = (hostile: readonly number[]): (() => void) => {
    return () => new BytesMessages(() => {}).feed(Buffer.from(hostile));
  };
  expect(refused([1, 0, 0, 0, 2, 0x0a, 0])).toThrow("a message that is compressed");
  expect(refused([0, 0, 0, 0, 2, 0x12, 0])).toThrow("a message of other than bytes");
  expect(refused([0, 0, 0, 0, 2, 0x10, 0])).toThrow("a last word that is none");
  expect(refused([0, 0, 0, 0, 3, 0x10, 1])).toThrow("a last word that is none");
  expect(refused([0, 0, 0, 0, 9, 0x0a, 0x80, 0x80, 0x80, 0x80])).toThrow("a length that has no end");
  expect(refused([0, 0, 0, 0, 3, 0x0a, 5, 1])).toThrow("a message whose lengths do not agree");
});
