import { expect, test } from "vitest";
import { goalTable, page, type Report, reportTable } from "./report.ts";
import { summarize } from "./statistics.ts";

const report: Report = {
  at: "2026-01-02T03:04:05.000Z",
  commit: "abc <dirty>",
  machine: { processor: "two of them" },
  runs: 3,
  figures: [
    {
      part: "calls",
      name: "exec",
      unit: "ms",
      better: "less",
      series: [
        { name: "husk", summary: summarize([40, 60, 80]) },
        { name: "runc", summary: summarize([30]) },
      ],
      goals: [
        { of: "runc", bound: 2, value: 2, met: true },
        { bound: 50, value: 60, met: false },
      ],
    },
  ],
};

test("a line for each thing that was measured, with what husk's is by it", () => {
  expect(reportTable(report).split("\n").slice(2)).toEqual([
    "exec    husk  60.0 ms  40.0 to 80.0",
    "        runc  30.0 ms                        2.00",
  ]);
});

test("goals are said to be met or missed", () => {
  expect(goalTable(report).split("\n").slice(2)).toEqual([
    "exec    2.00 x runc, at most 2  met",
    "exec       60.0 ms, at most 50  missed",
    "",
  ]);
  expect(goalTable({ ...report, figures: report.figures.map((figure) => ({ ...figure, goals: [] })) })).toBe("");
});

test("the page has everything in it, and loads nothing", () => {
  const html = page(report);
  expect(html).toContain("abc &lt;dirty&gt;");
  expect(html).toContain("two of them");
  expect(html).toContain('<p class="missed">60.0 ms, at most 50: missed</p>');
  expect(html.match(/<svg /g)).toHaveLength(1);
  expect(html).not.toMatch(/<script|<link|src=|href=/);
});
