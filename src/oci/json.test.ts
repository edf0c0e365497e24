import * as fc from "fast-check";
import { describe, expect, test } from "vitest";
import { parseJson, stringifyJson } from "./json.ts";
import { jsonError } from "./json-position.ts";

describe("64-bit numbers", () => {
  test("survive the way in and out", () => {
    const text = '{"hard":18446744073709551615,"limit":9223372036854771712,"low":-9223372036854775808,"n":9007199254740991}';
    expect(parseJson(text, "x")).toEqual({ hard: 2n ** 64n - 1n, limit: 2n ** 63n - 4096n, low: -(2n ** 63n), n: Number.MAX_SAFE_INTEGER });
    expect(stringifyJson(parseJson(text, "x"))).toBe(text);
  });

  test("fractions and powers stay numbers", () => {
    expect(parseJson("[1.2345678901234567, 1e300, 1234567890123456e5]", "x")).toEqual([1.2345678901234567, 1e300, 1234567890123456e5]);
  });

  test("any of them, anywhere", () => {
    fc.assert(
      fc.property(fc.array(fc.bigInt(-(2n ** 63n), 2n ** 64n - 1n)), (numbers) => {
        const text = `[${numbers.join(",")}]`;
        const parsed = parseJson(text, "x") as (number | bigint)[];
        expect(parsed.map(BigInt)).toEqual(numbers);
        expect(stringifyJson(parsed)).toBe(text);
      }),
    );
  });
});

describe("the place of an error", () => {
  test.each([
    ["", "line 1, column 1: expected a value, got the end of the text"],
    ["abc", 'line 1, column 1: expected a value, got "a"'],
    ["{", "line 1, column 2: expected a property's name in double quotes, got the end of the text"],
    ['{"a": 1,}', 'line 1, column 9: expected a property\'s name in double quotes, got "}"'],
    ["{'a': 1}", "line 1, column 2: expected a property's name in double quotes, got \"'\""],
    ['{\n  "a" 1}', 'line 2, column 7: expected ":", got "1"'],
    ['{\n  "a": 1\n  "b": 2\n}', 'line 3, column 3: expected "," or "}", got "\\""'],
    ["[1, 2", 'line 1, column 6: expected "," or "]", got the end of the text'],
    ["[1,]", 'line 1, column 4: expected a value, got "]"'],
    ["[01]", 'line 1, column 3: expected "," or "]", got "1"'],
    ["{} x", 'line 1, column 4: expected the end of the text, got "x"'],
    ['["a\nb"]', 'line 1, column 4: expected the string\'s end, got "\\n"'],
    ['["a\\x"]', 'line 1, column 4: expected an escape such as \\n, got "\\\\"'],
    ['"🐧', "line 1, column 4: expected the string's end, got the end of the text"],
    ["// x\n{}", 'line 1, column 1: expected a value, got "/"'],
    ["[".repeat(600), 'line 1, column 501: expected at most 500 levels, got "["'],
  ])("%j: %s", (text, problem) => {
    expect(() => parseJson(text, "config.json")).toThrow(`config.json: ${problem}`);
  });

  test("is found for exactly those texts that JSON.parse refuses", () => {
    const parses = (text: string): boolean => {
      try {
        JSON.parse(text);
        return true;
      } catch {
        return false;
      }
    };
    const damaged = fc.tuple(fc.json(), fc.nat(), fc.nat({ max: 3 }), fc.string({ maxLength: 2 })).map(([text, place, removed, put]) => {
      const offset = place % (text.length + 1);
      return text.slice(0, offset) + put + text.slice(offset + removed);
    });
    fc.assert(
      fc.property(
        fc.oneof(
          damaged,
          fc.json(),
          fc.string(),
          fc.string({ unit: fc.constantFrom(...Array.from('{}[]:,"\\01-.eEtrufalsn \n\u007f\u0000')) }),
        ),
        (text) => {
          const found = jsonError(text);
          expect(found === undefined).toBe(parses(text));
          if (found === undefined) return;
          const lines = text.split("\n");
          expect(found.line).toBeLessThanOrEqual(lines.length);
          expect(found.column).toBeLessThanOrEqual((lines[found.line - 1] ?? "").length + 1);
        },
      ),
      { numRuns: 3000 },
    );
  });
});
