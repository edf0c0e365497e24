import { expect, test } from "vitest";
import { interleave, summarize } from "./samples.ts";

test("an odd number of samples has its middle as the median", () => {
  expect(summarize([30, 10, 20])).toEqual({ medianMs: 20, minMs: 10, maxMs: 30, runs: 3 });
});

test("an even number of samples has the mean of the middle two", () => {
  expect(summarize([4, 1, 3, 2])).toEqual({ medianMs: 2.5, minMs: 1, maxMs: 4, runs: 4 });
});

test("no samples are an error", () => {
  expect(() => summarize([])).toThrow("expected at least one sample");
});

test("things are measured in turn, and the first round is not counted", async () => {
  const order: string[] = [];
  const measured = (name: string) => {
    let ms = name === "a" ? 1000 : 2000;
    return () => {
      order.push(name);
      return Promise.resolve(++ms);
    };
  };
  const result = await interleave(2, { a: measured("a"), b: measured("b") });
  expect(order).toEqual(["a", "b", "a", "b", "a", "b"]);
  expect(result.a).toEqual({ medianMs: 1002.5, minMs: 1002, maxMs: 1003, runs: 2 });
  expect(result.b).toEqual({ medianMs: 2002.5, minMs: 2002, maxMs: 2003, runs: 2 });
});
