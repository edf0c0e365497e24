import * as fc from "fast-check";
import { expect, test } from "vitest";
import { nearest } from "./nearest.ts";

test.each([
  ["memroy", ["memory", "memory_overhead"], "memory"],
  ["--rooot", ["--root", "--log"], "--root"],
  ["mv", ["vm", "log"], "vm"],
  ["x", ["vm", "log"], undefined],
  ["frobnicate", ["start", "state"], undefined],
  ["sart", ["state", "start"], "start"],
  ["anything", [], undefined],
])("%s", (word, candidates, expected) => {
  expect(nearest(word, candidates)).toBe(expected);
});

test("a word is nearest to itself, and one mistake is always found", () => {
  fc.assert(
    fc.property(fc.string({ minLength: 1, maxLength: 20 }), fc.nat(), (word, place) => {
      expect(nearest(word, ["other", word])).toBe(word);
      const at = place % word.length;
      expect(nearest(`${word.slice(0, at)}~${word.slice(at)}`, [word])).toBe(word);
    }),
  );
});
