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

test("what nobody needs any more is given back", async () => {
  const left = new WeakRef({ some: "garbage" });
  await new Promise((resolve) => setImmediate(resolve)); // until then V8 keeps what a WeakRef has been made of
  beFrugal();
  expect(left.deref()).toBeUndefined();
});
