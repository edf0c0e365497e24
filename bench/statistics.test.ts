import { expect, test } from "vitest";
import { compare, interleave, mannWhitney, summarize } from "./statistics.ts";

test("an odd number of samples has its middle as the median", () => {
  expect(summarize([30, 10, 20])).toEqual({ median: 20, min: 10, max: 30, samples: [30, 10, 20] });
});

test("an even number of samples has the mean of the middle two", () => {
  expect(summarize([4, 1, 3, 2])).toMatchObject({ median: 2.5, min: 1, max: 4 });
});

test("no samples are an error", () => {
  expect(() => summarize([])).toThrow("expected at least one sample");
});

test("things are measured in turn, and the first round is not counted", async () => {
  const order: string[] = [];
  const measured = (name: string) => {
    let sample = name === "a" ? 1000 : 2000;
    return () => {
      order.push(name);
      return Promise.resolve(++sample);
    };
  };
  const result = await interleave(
    2,
    new Map([
      ["a", measured("a")],
      ["b", measured("b")],
    ]),
  );
  expect(order).toEqual(["a", "b", "a", "b", "a", "b"]);
  expect(result.get("a")).toEqual({ median: 1002.5, min: 1002, max: 1003, samples: [1002, 1003] });
  expect(result.get("b")?.samples).toEqual([2002, 2003]);
});

test("Mann-Whitney is as the formula says, ties and all", () => {
  expect(mannWhitney([1, 2, 3, 4, 5], [6, 7, 8, 9, 10])).toBeCloseTo(0.01219, 4); // U = 0, z = 12 / 4.787
  expect(mannWhitney([1, 1, 2, 2], [1, 2, 3, 3])).toBeCloseTo(0.2849, 3); // U = 4, z = 3.5 / 3.273
  expect(mannWhitney([1, 2, 3], [1, 2, 3])).toBeCloseTo(1, 6);
  expect(mannWhitney([5, 5], [5, 5])).toBe(1);
  expect(mannWhitney([1, 2, 3, 4], [3, 4, 5, 6])).toBe(mannWhitney([3, 4, 5, 6], [1, 2, 3, 4]));
});

const ten = [100, 101, 99, 102, 98, 100, 103, 97, 101, 99];

function scaled(by: number): ReturnType<typeof summarize> {
  return summarize(ten.map((sample) => sample * by));
}

test("a clear difference is better or worse by what is wanted of the figure", () => {
  expect(compare(scaled(1), scaled(1.2), "less")).toMatchObject({ verdict: "worse", ratio: 1.2 });
  expect(compare(scaled(1), scaled(1.2), "more").verdict).toBe("better");
  expect(compare(scaled(1), scaled(0.8), "less").verdict).toBe("better");
  expect(compare(scaled(1), scaled(0.8), "more").verdict).toBe("worse");
});

test("what is small, or might be chance, is no difference", () => {
  expect(compare(scaled(1), scaled(1.04), "less")).toMatchObject({ verdict: "same" }); // certain, and of no account
  const wide = [50, 150, 60, 140, 70, 130, 80, 120, 90, 110];
  expect(compare(summarize(wide), summarize(wide.map((sample) => sample * 1.2)), "less").verdict).toBe("same");
  expect(compare(summarize([1, 2]), summarize([10, 20]), "less").verdict).toBe("same"); // too few to tell
});
