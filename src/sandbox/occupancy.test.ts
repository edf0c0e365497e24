import { expect, test } from "vitest";
import { Occupancy } from "./occupancy.ts";

test("is over with the end of the last container, where that left no process", () => {
  const occupancy = new Occupancy();
  expect(occupancy.isOver).toBe(false); // nobody has said that there is nothing
  occupancy.begins();
  expect(occupancy.isOver).toBe(false);
  occupancy.hasEnded(true);
  expect(occupancy.isOver).toBe(true);
});

test("is not over where a process was left, or a container began before another's end was told", () => {
  const occupancy = new Occupancy();
  occupancy.begins();
  occupancy.hasEnded(false);
  expect(occupancy.isOver).toBe(false);
  occupancy.begins();
  occupancy.begins();
  occupancy.hasEnded(true);
  expect(occupancy.isOver).toBe(false);
  occupancy.hasEnded(true);
  expect(occupancy.isOver).toBe(true);
});
