import { expect, test } from "vitest";
import { Options as RuncOptions } from "../gen/containerd/runc/v1/options.ts";
import { Options as RuntimeOptions } from "../gen/containerd/runtimeoptions/v1/options.ts";
import { judgeOptions } from "./create-options.ts";

test("no options, and options that say nothing", () => {
  expect(judgeOptions(undefined)).toEqual([]);
  expect(judgeOptions({ typeUrl: "", value: Buffer.of() })).toEqual([]);
  expect(judgeOptions({ typeUrl: "containerd.runc.v1.Options", value: Buffer.of() })).toEqual([]);
});

test("what has no effect is named", () => {
  const runc = RuncOptions.encode(RuncOptions.fromPartial({ binaryName: "crun", ioUid: 5 })).finish();
  expect(judgeOptions({ typeUrl: "types.containerd.io/containerd.runc.v1.Options", value: Buffer.from(runc) })).toEqual([
    "the runtime options ioUid, binaryName (containerd.runc.v1.Options) are without effect",
  ]);
  const cri = RuntimeOptions.encode(RuntimeOptions.fromPartial({ configPath: "/x", configBody: Buffer.from("a") })).finish();
  expect(judgeOptions({ typeUrl: "runtimeoptions.v1.Options", value: Buffer.from(cri) })).toEqual([
    "the runtime options configPath, configBody (runtimeoptions.v1.Options) are without effect",
  ]);
});

test("an unknown type, and bytes that are none of the type", () => {
  expect(() => judgeOptions({ typeUrl: "io.example.Options", value: Buffer.of() })).toThrow(
    'the runtime options are of an unknown type, "io.example.Options"',
  );
  expect(() => judgeOptions({ typeUrl: "toString", value: Buffer.of() })).toThrow("unknown type");
  expect(() => judgeOptions({ typeUrl: "containerd.runc.v1.Options", value: Buffer.from([0x0a, 0xff]) })).toThrow(
    "the runtime options are no containerd.runc.v1.Options",
  );
});
