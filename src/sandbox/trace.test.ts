import { expect, test } from "vitest";
import { Trace } from "./trace.ts";

test("the waterfall has a line a mark, each after the one before it", () => {
  const trace = new Trace();
  trace.mark("first");
  trace.mark("second");
  const lines = trace.waterfall().split("\n");
  expect(lines).toHaveLength(2);
  expect(lines[0]).toMatch(/^ +\d+ ms  \+ +\d+ ms .*█.*  first$/);
  expect(lines[1]).toMatch(/  second$/);
});

test("no marks, no waterfall", () => {
  expect(new Trace().waterfall()).toBe("");
});

test("who follows hears of what has been reached, and of what is reached from then on", () => {
  const trace = new Trace();
  trace.mark("first");
  const heard: string[] = [];
  trace.follow((text) => heard.push(text));
  trace.mark("second");
  expect(heard).toEqual([expect.stringMatching(/^after \d+ ms: first$/), expect.stringMatching(/^after \d+ ms: second$/)]);
});
