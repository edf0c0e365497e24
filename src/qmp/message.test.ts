import * as fc from "fast-check";
import { describe, expect, test } from "vitest";
import { decodeMessage, encodeCommand } from "./message.ts";

const decode = (message: unknown) => decodeMessage(Buffer.from(JSON.stringify(message)));
const timestamp = { seconds: 1, microseconds: 2 };

describe("decodeMessage", () => {
  test.each([
    [
      { return: { a: 1 }, id: 3 },
      { kind: "return", id: 3, value: { a: 1 } },
    ],
    [
      { return: null, id: 3 },
      { kind: "return", id: 3, value: null },
    ],
    [
      { error: { class: "GenericError", desc: "no" }, id: 3 },
      { kind: "error", id: 3, class: "GenericError", desc: "no" },
    ],
    [{ error: { class: "GenericError", desc: "no" } }, { kind: "error", id: undefined, class: "GenericError", desc: "no" }],
    [
      { event: "STOP", timestamp },
      { kind: "event", name: "STOP", data: {}, timestamp },
    ],
    [
      { event: "STOP", data: { x: 1 }, timestamp },
      { kind: "event", name: "STOP", data: { x: 1 }, timestamp },
    ],
  ])("%j", (message, expected) => {
    expect(decode(message)).toEqual(expected);
  });

  test.each([
    [5, "expected an object, got 5"],
    [[], "expected an object, got an empty list"],
    [{}, "expected a greeting, a return, an error or an event"],
    [{ return: {} }, "id: expected a whole number, got nothing"],
    [{ return: {}, id: "1" }, 'id: expected a whole number of at least 0, got "1"'],
    [{ error: "no", id: 1 }, 'error: expected an object, got "no"'],
    [{ error: { class: "GenericError" }, id: 1 }, "error.desc: expected a string, got nothing"],
    [{ event: "STOP" }, "timestamp: expected an object, got nothing"],
    [{ QMP: { version: 7, capabilities: [] } }, "QMP.version: expected an object, got 7"],
  ])("%j: %s", (message, problem) => {
    expect(() => decode(message)).toThrow(expect.objectContaining({ name: "ShapeError", message: problem }));
  });

  test("refuses what is no JSON and no UTF-8", () => {
    expect(() => decodeMessage(Buffer.from("{"))).toThrow(SyntaxError);
    expect(() => decodeMessage(Buffer.from([0x22, 0xff, 0x22]))).toThrow(TypeError);
  });
});

test("a command is one line of JSON that ends with a newline, whatever its arguments hold", () => {
  fc.assert(
    fc.property(fc.nat(), fc.string(), fc.dictionary(fc.string(), fc.jsonValue()), fc.boolean(), (id, name, args, outOfBand) => {
      const line = encodeCommand(id, name, args, outOfBand);
      expect(line.indexOf("\n")).toBe(line.length - 1);
      const expected = { [outOfBand ? "exec-oob" : "execute"]: name, arguments: args, id };
      expect(JSON.parse(line)).toEqual(JSON.parse(JSON.stringify(expected)));
    }),
  );
});
