import { expect, test } from "vitest";
import { type FigureKind, goalText, resultOf, rounded } from "./figure.ts";
import { summarize } from "./statistics.ts";

function figure(changes: Partial<FigureKind>): FigureKind {
  return { name: "exec", unit: "ms", better: "less", goals: [], ...changes };
}

test("a goal is a multiple of another's median, or a value", () => {
  const measured = new Map([
    ["husk", summarize([60, 50, 70])],
    ["runc", summarize([20, 30, 40])],
  ]);
  const result = resultOf("calls", figure({ goals: [{ of: "runc", bound: 1.5 }, { of: "runc", bound: 2 }, { bound: 60 }] }), measured);
  expect(result.goals.map(({ value, met }) => [value, met])).toEqual([
    [2, false],
    [2, true],
    [60, true],
  ]);
  expect(result.goals.map((goal) => goalText(goal, result))).toEqual([
    "2.00 x runc, at most 1.5",
    "2.00 x runc, at most 2",
    "60.0 ms, at most 60",
  ]);
  expect(result.series.map(({ name }) => name)).toEqual(["husk", "runc"]);
});

test("of a rate there is to be at least as much; what was not measured is no goal", () => {
  const measured = new Map([["husk", summarize([149])]]);
  const rate = figure({ unit: "MB/s", better: "more", goals: [{ bound: 150 }, { of: "runc", bound: 0.5 }] });
  const result = resultOf("stdio", rate, measured);
  expect(result.goals).toEqual([{ bound: 150, value: 149, met: false }]);
  expect(result.goals.map((goal) => goalText(goal, result))).toEqual(["149 MB/s, at least 150"]);
});

test("three digits that count", () => {
  expect([0.01234, 1.5, 12.34, 123.4, 1234.5].map(rounded)).toEqual(["0.0123", "1.50", "12.3", "123", "1235"]);
});
