import type { EventEmitter } from "node:events";
import { expect, test } from "vitest";
import { leaveCodeCache } from "../code-cache.ts";
import { beFrugal, keepFewBuffers } from "./frugal.ts";

test("V8's flags are changed once for bulk, with the code that was kept under the old ones left first", () => {
  let changes = 0;
  (process as EventEmitter).on(leaveCodeCache, () => (changes += 1));
  keepFewBuffers();
  keepFewBuffers();
  expect(changes).toBe(1);
  beFrugal();
  keepFewBuffers();
  expect(changes).toBe(2);
});
