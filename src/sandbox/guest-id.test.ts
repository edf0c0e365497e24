import { expect, test } from "vitest";
import { guestIdOf } from "./guest-id.ts";

test.each(["a", "A.b-c_d+e", "-x", "_", "0".repeat(128)])("the guest knows %s by its id", (id) => {
  expect(guestIdOf(id)).toBe(id);
});

test.each([".hidden", "...", "0".repeat(129), "0".repeat(255)])("the guest knows %s by another name, always the same", (id) => {
  const name = guestIdOf(id);
  expect(name).toMatch(/^[0-9a-f]{64}$/);
  expect([guestIdOf(id), guestIdOf(name)]).toEqual([name, name]);
  expect(guestIdOf(`${id}0`)).not.toBe(name);
});
