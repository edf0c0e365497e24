import * as fc from "fast-check";
import { expect, test } from "vitest";
import { LineSplitter } from "./lines.ts";

function cut(bytes: Buffer, cuts: readonly number[]): Buffer[] {
  const places = [0, ...cuts.map((place) => place % (bytes.length + 1)).toSorted((a, b) => a - b), bytes.length];
  return places.slice(1).map((end, index) => bytes.subarray(places[index], end));
}

const line = fc.string({ unit: "binary" }).map((text) => text.replaceAll("\n", ""));

test("however a stream is cut into chunks, its lines are the same", () => {
  fc.assert(
    fc.property(fc.array(line), line, fc.array(fc.nat()), (lines, rest, cuts) => {
      const splitter = new LineSplitter(1024 * 1024);
      const stream = Buffer.from([...lines, rest].join("\n"));
      const found = cut(stream, cuts).flatMap((chunk) => [...splitter.push(chunk)].map(String));
      expect(found).toEqual(lines.map((each) => Buffer.from(each).toString()));
      expect([...splitter.push(Buffer.from("\n"))].map(String)).toEqual([Buffer.from(rest).toString()]);
    }),
  );
});

test("a line of the longest length passes; one byte more does not, wherever it is cut", () => {
  fc.assert(
    fc.property(fc.integer({ min: 0, max: 64 }), fc.array(fc.nat()), (limit, cuts) => {
      const push = (length: number) => {
        const splitter = new LineSplitter(limit);
        return cut(Buffer.from(`${"x".repeat(length)}\n`), cuts).flatMap((chunk) => [...splitter.push(chunk)].map(String));
      };
      expect(push(limit)).toEqual(["x".repeat(limit)]);
      expect(() => push(limit + 1)).toThrow(new RangeError(`a line is longer than ${limit} bytes`));
    }),
  );
});

test("lines before one that is too long are delivered", () => {
  const lines: string[] = [];
  const splitter = new LineSplitter(3);
  expect(() => {
    for (const each of splitter.push(Buffer.from("abc\nabcd\n"))) lines.push(each.toString());
  }).toThrow(RangeError);
  expect(lines).toEqual(["abc"]);
});
