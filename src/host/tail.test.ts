import { expect, test } from "vitest";
import { Tail } from "./tail.ts";

test("only the end is kept", () => {
  const tail = new Tail(10);
  tail.add("0123456789");
  tail.add(Buffer.from("abcde"));
  expect(tail.lines(1)).toEqual(["56789abcde"]);
});

test("blank lines and what a terminal would obey are left out", () => {
  const tail = new Tail();
  tail.add("\x1b[31mred\x1b[0m\r\n\n  \nsecond\x07\n");
  expect(tail.lines(5)).toEqual(["red", "second"]);
  expect(tail.lines(1)).toEqual(["second"]);
});
