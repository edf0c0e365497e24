import { expect, test } from "vitest";
import type { FigureResult } from "./figure.ts";
import { niceStep, plot } from "./plot.ts";
import { summarize } from "./statistics.ts";

const figure: FigureResult = {
  part: "calls",
  name: 'exec of "true"',
  unit: "ms",
  better: "less",
  series: [
    { name: "husk", summary: summarize([40, 60, 80]) },
    { name: "runc <1>", summary: summarize([20, 30, 40]) },
  ],
  goals: [{ of: "runc <1>", bound: 3, value: 2, met: true }],
};

test("bars are as long as medians, from 0 on, on one scale that has room for everything", () => {
  const svg = plot(figure);
  // The goal, 90, is the most: the scale ends at 100, 480 pixels from where it begins at 210.
  const widths = [...svg.matchAll(/<rect x="210" y="[\d.]+" width="([\d.]+)"/g)].map(([, width]) => Number(width));
  expect(widths).toEqual([288, 144]);
  expect([...svg.matchAll(/text-anchor="middle"[^>]*>(\d+)</g)].map(([, tick]) => tick)).toEqual(["0", "20", "40", "60", "80", "100"]);
});

test("every sample, the spread and the goal are there, in words that are no markup", () => {
  const svg = plot(figure);
  expect([...svg.matchAll(/<circle cx="([\d.]+)"/g)].map(([, x]) => Number(x))).toEqual([402, 498, 594, 306, 354, 402]);
  expect(svg).toContain('d="M402 23H594');
  expect(svg).toMatch(/d="M642 8V68" stroke="#15803d"/);
  expect(svg).toContain(">runc &lt;1&gt;<");
  expect(svg).toContain('aria-label="exec of &quot;true&quot;"');
});

test("steps are round, and there are four to ten of them", () => {
  expect([90, 100, 7, 0.03, 1234, 0].map(niceStep)).toEqual([20, 20, 1, 0.005, 200, 1]);
  for (let most = 0.001; most < 1e6; most *= 1.37) {
    expect(most / niceStep(most)).toBeGreaterThanOrEqual(4);
    expect(most / niceStep(most)).toBeLessThanOrEqual(10);
  }
});
