import * as fc from "fast-check";
import { describe, expect, test } from "vitest";
import { encodeFrame, type Frame, FrameParser, maxDataBytes } from "./frame.ts";
import { TtrpcError } from "./ttrpc-error.ts";

const frame = fc.record({
  streamId: fc.integer({ min: 0, max: 2 ** 32 - 1 }),
  type: fc.integer({ min: 0, max: 255 }),
  flags: fc.integer({ min: 0, max: 255 }),
  data: fc.uint8Array({ maxLength: 300 }),
});

/** A header that announces `length` bytes of data. */
function header(length: number, streamId = 1, type = 1, flags = 0): Buffer {
  const bytes = Buffer.alloc(10);
  bytes.writeUInt32BE(length, 0);
  bytes.writeUInt32BE(streamId, 4);
  bytes.writeUInt8(type, 8);
  bytes.writeUInt8(flags, 9);
  return bytes;
}

/** What a parser makes of the bytes when they come cut at these places. The chunks are overwritten at the end, as a reader's buffer may be. */
function parse(bytes: Buffer, cuts: readonly number[], parser = new FrameParser()): Frame[] {
  const places = [...new Set(cuts.map((cut) => cut % (bytes.length + 1)))].sort((a, b) => a - b);
  const frames: Frame[] = [];
  let begin = 0;
  for (const end of [...places, bytes.length]) {
    const chunk = Buffer.from(bytes.subarray(begin, end));
    for (const frame of parser.push(chunk)) frames.push({ ...frame, data: frame.data && Buffer.from(frame.data) });
    chunk.fill(0xff);
    begin = end;
  }
  return frames;
}

describe("FrameParser", () => {
  test("gives the frames that were encoded, however they are cut", () => {
    fc.assert(
      fc.property(fc.array(frame, { maxLength: 8 }), fc.array(fc.nat(4000)), (frames, cuts) => {
        const bytes = Buffer.concat(frames.map(({ streamId, type, flags, data }) => encodeFrame(streamId, type, flags, data)));
        const expected = frames.map((each) => ({ ...each, length: each.data.length, data: Buffer.from(each.data) }));
        expect(parse(bytes, cuts)).toEqual(expected);
      }),
    );
  });

  test("gives the same for bytes one by one", () => {
    const bytes = Buffer.concat([encodeFrame(1, 1, 0, Buffer.from("one")), encodeFrame(3, 2, 5, Buffer.alloc(0))]);
    const parser = new FrameParser();
    const frames = [...bytes].flatMap((byte) => [...parser.push(Buffer.of(byte))]);
    expect(frames).toEqual([
      { streamId: 1, type: 1, flags: 0, length: 3, data: Buffer.from("one") },
      { streamId: 3, type: 2, flags: 5, length: 0, data: Buffer.alloc(0) },
    ]);
  });

  test("reads past the data of a frame that is too long, and goes on behind it", () => {
    fc.assert(
      fc.property(fc.integer({ min: maxDataBytes + 1, max: maxDataBytes + 1000 }), fc.array(fc.nat()), frame, (length, cuts, next) => {
        const bytes = Buffer.concat([
          header(length, 7, 3, 1),
          Buffer.alloc(length),
          encodeFrame(next.streamId, next.type, next.flags, next.data),
        ]);
        expect(parse(bytes, cuts)).toEqual([
          { streamId: 7, type: 3, flags: 1, length, data: undefined },
          { ...next, length: next.data.length, data: Buffer.from(next.data) },
        ]);
      }),
      { numRuns: 10 },
    );
  });

  test("takes the longest frame there may be", () => {
    const data = Buffer.alloc(maxDataBytes, 1);
    const [only] = parse(encodeFrame(1, 1, 0, data), [11, 70_000]);
    expect(only?.data?.equals(data)).toBe(true);
  });

  test("gives up where the length's first byte is not zero", () => {
    fc.assert(
      fc.property(fc.integer({ min: 2 ** 24, max: 2 ** 32 - 1 }), fc.array(fc.nat(20)), (length, cuts) => {
        expect(() => parse(header(length), cuts)).toThrow(
          new TtrpcError(13, `the peer does not speak ttrpc: it announced a frame of ${length} bytes`),
        );
      }),
    );
    expect(() => parse(header(2 ** 24 - 1), [])).not.toThrow();
  });

  test("throws nothing but a TtrpcError at garbage, and gives frames of bounded length only", () => {
    fc.assert(
      fc.property(fc.uint8Array({ maxLength: 500 }), fc.array(fc.nat(500)), (garbage, cuts) => {
        try {
          for (const { length, data } of parse(Buffer.from(garbage), cuts)) expect(data?.length).toBe(length);
        } catch (error) {
          expect(error).toBeInstanceOf(TtrpcError);
        }
      }),
      { numRuns: 500 },
    );
  });
});

test("encodeFrame refuses data that is too long", () => {
  expect(() => encodeFrame(1, 1, 0, Buffer.alloc(maxDataBytes + 1))).toThrow(
    new TtrpcError(8, "message length 4194305 exceed maximum message size of 4194304"),
  );
});
