import { describe, expect, test } from "vitest";
import {
  absolutePath,
  boolean,
  checked,
  integer,
  list,
  map,
  nonEmptyList,
  nonEmptyString,
  object,
  oneOf,
  optional,
  propertiesOf,
  type Reader,
  read,
  show,
  string,
} from "./narrow.ts";

interface Dog {
  readonly name: string;
  readonly age?: number;
  readonly friends?: readonly Dog[];
}
const dog: Reader<Dog> = object<Dog>({ name: nonEmptyString, age: optional(integer(0, 30)), friends: optional(list((v, p) => dog(v, p))) });

const problem = (reader: Reader<unknown>, value: unknown): string => {
  try {
    return `no error: ${JSON.stringify(read(reader, value))}`;
  } catch (error) {
    return String(error);
  }
};

describe("readers tell what they expected, what they got, and where", () => {
  test.each<[Reader<unknown>, unknown, string]>([
    [string, 5, "expected a string, got 5"],
    [string, "a\0b", 'expected a string without a NUL byte, got "a\\u0000b"'],
    [nonEmptyString, "", 'expected a non-empty string, got ""'],
    [nonEmptyString, "\0", 'expected a string without a NUL byte, got "\\u0000"'],
    [absolutePath, "etc", 'expected an absolute path, got "etc"'],
    [boolean, "true", 'expected true or false, got "true"'],
    [integer(), 1.5, "expected a whole number, got 1.5"],
    [integer(), 2 ** 53, "expected a whole number, got 9007199254740992"],
    [integer(), 2n ** 64n, "expected a whole number, got 18446744073709551616"],
    [integer(0), -1, "expected a whole number of at least 0, got -1"],
    [integer(0, 9), 10, "expected a whole number from 0 to 9, got 10"],
    [oneOf(["a", "b"]), "c", 'expected one of "a", "b", got "c"'],
    [oneOf(["a"]), null, 'expected "a", got null'],
    [list(string), {}, "expected a list, got an object"],
    [list(string), ["a", 1], "[1]: expected a string, got 1"],
    [nonEmptyList(string), [], "expected a non-empty list, got an empty list"],
    [map(string), [], "expected an object, got an empty list"],
    [map(string), { "a b": 1 }, '["a b"]: expected a string, got 1'],
    [dog, undefined, "expected an object, got nothing"],
    [dog, {}, "name: expected a non-empty string, got nothing"],
    [dog, { name: "a", friends: [{ name: "b" }, { name: "c", age: 31 }] }, "friends[1].age: expected a whole number from 0 to 30, got 31"],
    [list(dog), [{ name: "a" }, 1], "[1]: expected an object, got 1"],
    [checked(string, (text) => (text === "x" ? "no x here" : undefined)), "x", "no x here"],
  ])("%#: %o", (reader, value, expected) => {
    expect(problem(reader, value)).toBe(`ShapeError: ${expected}`);
  });
});

test("objects come out with the known properties alone; unknown ones are noted, 64 at most", () => {
  const unknown: string[] = [];
  const value = read(dog, { name: "a", colour: 1, friends: [{ name: "b", "last name": 2 }] }, unknown);
  expect(value).toEqual({ name: "a", friends: [{ name: "b" }] });
  expect(unknown).toEqual(['friends[0]["last name"]', "colour"]);
  const many: string[] = [];
  read(dog, Object.fromEntries([["name", "a"], ...Array.from({ length: 100 }, (_, index) => [`x${index}`, index])]), many);
  expect(many).toHaveLength(64);
});

test("null counts as absent for an optional property, and for no other", () => {
  expect(read(dog, { name: "a", age: null })).toEqual({ name: "a" });
  expect(problem(dog, { name: null })).toBe("ShapeError: name: expected a non-empty string, got null");
});

test("a key named __proto__ is a key like others", () => {
  const value = read(map(string), JSON.parse('{"__proto__": "x", "b": "y"}'));
  expect(Object.entries(value)).toEqual([
    ["__proto__", "x"],
    ["b", "y"],
  ]);
  expect(problem(dog, JSON.parse('{"__proto__": {"name": "a"}}'))).toBe("ShapeError: name: expected a non-empty string, got nothing");
});

test("what is shown is bounded and on one line", () => {
  expect(show("x\n".repeat(100))).toBe(`"${"x\\n".repeat(30)}x..."`);
  expect(problem(map(string), { ["k".repeat(1000)]: 1 }).length).toBeLessThan(1100);
});

test("propertiesOf lists the leaves", () => {
  const reader = object<{ a: string; b?: { c: readonly string[] }; d: readonly { e: string }[]; f: Record<string, { g: string }> }>({
    a: string,
    b: optional(object<{ c: readonly string[] }>({ c: list(string) })),
    d: nonEmptyList(object<{ e: string }>({ e: string })),
    f: map(checked(object<{ g: string }>({ g: string }), () => undefined)),
  });
  expect(propertiesOf(reader)).toEqual(["a", "b.c", "d[].e", "f[].g"]);
});
