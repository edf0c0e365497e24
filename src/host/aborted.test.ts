import { expect, test } from "vitest";
import { whenAborted } from "./aborted.ts";

test("an abort rejects, whether it comes after the call or came before", async () => {
  const controller = new AbortController();
  const before = whenAborted(controller.signal);
  controller.abort(new Error("gone"));
  await expect(before).rejects.toThrow("gone");
  await expect(whenAborted(controller.signal)).rejects.toThrow("gone");
});

test("without one, nothing happens", async () => {
  const never = whenAborted(new AbortController().signal);
  expect(await Promise.race([never, Promise.resolve("first")])).toBe("first");
});
