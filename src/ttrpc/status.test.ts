import * as fc from "fast-check";
import { describe, expect, test } from "vitest";
import { GrpcCode, HuskError, meaningOf } from "../errors.ts";
import { errorOf, statusOf } from "./status.ts";
import { TtrpcError } from "./ttrpc-error.ts";

describe("statusOf", () => {
  test.each([
    [new HuskError("not-found", "container web"), 5, "container web: not found"],
    [new HuskError("not-found", "process already finished: not found"), 5, "process already finished: not found"],
    [new HuskError("already-exists", "exec one"), 6, "exec one: already exists"],
    [new HuskError("wrong-state", "container web is paused"), 9, "container web is paused: failed precondition"],
    [new HuskError("unsupported", "checkpoint"), 12, "checkpoint: not implemented"],
    [new HuskError("invalid-argument", "no id"), 3, "no id: invalid argument"],
    [new HuskError("deadline", "QEMU was late"), 4, "QEMU was late: context deadline exceeded"],
    [new HuskError("program-not-found", "executable file not found: /x"), 2, "executable file not found: /x"],
    [new HuskError("host", "no disk", { cause: new Error("ENOSPC"), hint: "make room" }), 2, "no disk: ENOSPC (make room)"],
    [new TtrpcError(GrpcCode.unavailable, "gone"), 14, "gone: unavailable"],
    [new TtrpcError(GrpcCode.dataLoss, "torn"), 15, "torn"],
    [new TypeError("a defect"), 2, "a defect"],
    ["a string", 2, "a string"],
  ])("%s", (error, code, message) => {
    expect(statusOf(error)).toEqual({ code, message, details: [] });
  });

  test("is bounded", () => {
    expect(statusOf(new HuskError("guest", "x".repeat(100_000))).message.length).toBeLessThan(5000);
  });
});

describe("errorOf", () => {
  test("takes the name of the class off again, and gives husk's code", () => {
    expect(errorOf({ code: 5, message: "container web: not found", details: [] })).toMatchObject({
      grpcCode: 5,
      code: "not-found",
      message: "container web",
    });
    expect(errorOf({ code: 2, message: "oops: not found", details: [] })).toMatchObject({ code: "internal", message: "oops: not found" });
    expect(errorOf({ code: 99, message: "", details: [] })).toMatchObject({ grpcCode: 99, code: "internal" });
  });

  test("makes one bounded line of what a peer says", () => {
    fc.assert(
      fc.property(fc.integer(), fc.string({ unit: "binary" }), (code, message) => {
        expect(errorOf({ code, message, details: [] }).message).not.toMatch(/[\x00-\x1f\x7f]/);
      }),
    );
    expect(errorOf({ code: 2, message: "x\n\x1b[31m".repeat(10_000), details: [] }).message.length).toBeLessThanOrEqual(4000);
  });

  test("is the way back for every code of its own", () => {
    for (const [code, { grpc }] of Object.entries(meaningOf)) {
      if (grpc !== GrpcCode.unknown) expect(errorOf(statusOf(new TtrpcError(grpc, "text")))).toMatchObject({ code, message: "text" });
    }
  });
});
