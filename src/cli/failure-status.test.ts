import { expect, test } from "vitest";
import { HuskError } from "../errors.ts";
import { failureStatus } from "./failure-status.ts";

test.each([
  ["run", 125, 127],
  ["restore", 125, 127],
  ["exec", 255, 255],
  ["create", 1, 1],
  ["update", 1, 1],
  [undefined, 1, 1],
])("%s ends with %d where husk fails", (verb, failed, notFound) => {
  expect(failureStatus(new HuskError("invalid-argument", "no"), verb)).toBe(failed);
  expect(failureStatus(new Error("a defect"), verb)).toBe(failed);
  expect(failureStatus(new HuskError("program-not-found", "no"), verb)).toBe(notFound);
});
