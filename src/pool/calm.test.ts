import { afterEach, beforeEach, expect, test, vi } from "vitest";
import { deferred } from "../host/deferred.ts";
import { Calm } from "./calm.ts";

beforeEach(() => {
  vi.useFakeTimers();
});
afterEach(() => {
  vi.useRealTimers();
});

/** Whether it is calm now. */
async function isCalm(calm: Calm): Promise<boolean> {
  let has = false;
  void calm.come().then(() => {
    has = true;
  });
  await vi.advanceTimersByTimeAsync(0);
  return has;
}

test("it is calm until somebody comes, and again a while after he is done", async () => {
  const calm = new Calm(10);
  expect(await isCalm(calm)).toBe(true);
  const start = deferred<void>();
  calm.disturb(start.promise);
  await vi.advanceTimersByTimeAsync(1000);
  expect(await isCalm(calm)).toBe(false);
  start.resolve();
  await vi.advanceTimersByTimeAsync(9);
  expect(await isCalm(calm)).toBe(false);
  await vi.advanceTimersByTimeAsync(1);
  expect(await isCalm(calm)).toBe(true);
});

test("whoever comes meanwhile is waited for as well, failed or not", async () => {
  const calm = new Calm(10);
  const waited = vi.fn();
  calm.disturb(Promise.resolve());
  void calm.come().then(waited);
  const starts = [
    () => Promise.reject(new Error("failed")),
    () => Promise.resolve(),
    () => new Promise((resolve) => setTimeout(resolve, 5)),
  ];
  for (const start of starts) {
    await vi.advanceTimersByTimeAsync(9);
    calm.disturb(start());
  }
  await vi.advanceTimersByTimeAsync(14);
  expect(waited).not.toHaveBeenCalled();
  await vi.advanceTimersByTimeAsync(1);
  expect(waited).toHaveBeenCalledOnce();
});
