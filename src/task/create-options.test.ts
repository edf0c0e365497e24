import { expect, test } from "vitest";
import { CreateOptions } from "../gen/containerd/linux/runc.ts";
import { Options as RuncOptions } from "../gen/containerd/runc/v1/options.ts";
import { Options as RuntimeOptions } from "../gen/containerd/runtimeoptions/v1/options.ts";
import type { Any } from "../gen/google/protobuf/any.ts";
import { judgeOptions } from "./create-options.ts";

function runc(options: Parameters<typeof RuncOptions.fromPartial>[0]): Any {
  const value = Buffer.from(RuncOptions.encode(RuncOptions.fromPartial(options)).finish());
  return { typeUrl: "types.containerd.io/containerd.runc.v1.Options", value };
}

/** As the Go clients of containerd 1.x have them. */
function older(options: Parameters<typeof CreateOptions.fromPartial>[0]): Any {
  const value = Buffer.from(CreateOptions.encode(CreateOptions.fromPartial(options)).finish());
  return { typeUrl: "containerd.linux.runc.CreateOptions", value };
}

function cri(options: { configPath?: string; body?: string }): Any {
  const { configPath = "", body = "" } = options;
  const value = RuntimeOptions.encode(RuntimeOptions.fromPartial({ configPath, configBody: Buffer.from(body) })).finish();
  return { typeUrl: "runtimeoptions.v1.Options", value: Buffer.from(value) };
}

test("no options, options that say nothing, and those that are obeyed at the shim's start", async () => {
  const nothing = { notes: [], warnings: [] };
  expect(await judgeOptions(undefined)).toEqual(nothing);
  expect(await judgeOptions({ typeUrl: "", value: Buffer.of() })).toEqual(nothing);
  expect(await judgeOptions({ typeUrl: "containerd.runc.v1.Options", value: Buffer.of() })).toEqual(nothing);
  expect(await judgeOptions(runc({ shimCgroup: "/shims" }))).toEqual(nothing);
  expect(await judgeOptions(older({ shimCgroup: "/shims" }))).toEqual(nothing);
  expect(await judgeOptions(cri({ configPath: "/etc/husk/other.toml" }))).toEqual(nothing);
  expect(await judgeOptions(cri({ body: 'ShimCgroup = "/shims"\nSystemdCgroup = false\n' }))).toEqual(nothing);
});

test("systemd makes the cgroup where that is asked for, in either form", async () => {
  expect(await judgeOptions(runc({ systemdCgroup: true }))).toEqual({ systemdCgroup: true, notes: [], warnings: [] });
  expect(await judgeOptions(cri({ body: "SystemdCgroup = true\n" }))).toEqual({ systemdCgroup: true, notes: [], warnings: [] });
});

test("what has no effect is named, and why; what nobody knows is a warning", async () => {
  const notes = [
    "the runtime option ioUid is without effect: every user of a container can open its own streams",
    "the runtime option binaryName is without effect: husk runs no runc",
  ];
  expect(await judgeOptions(runc({ binaryName: "crun", ioUid: 5 }))).toEqual({ notes, warnings: [] });
  expect(await judgeOptions(cri({ body: 'IoUid = 5\nBinaryName = "crun"\nMemory = "1G"\n' }))).toEqual({
    notes,
    warnings: ["the runtime option memory is unknown, and without effect"],
  });
});

/** The message with something in each field. */
function filled(message: object): Record<string, unknown> {
  const filler = (value: unknown): unknown =>
    Array.isArray(value) ? ["x"] : typeof value === "string" ? "x" : typeof value === "boolean" ? true : 1;
  const fields = Object.entries(message).filter(([name]) => name !== "$type");
  return Object.fromEntries(fields.map(([name, value]) => [name, filler(value)]));
}

test("every option of runc's, and of the older form, has an effect, or a reason for none", async () => {
  const [every, everyOlder] = [filled(RuncOptions.fromPartial({})), filled(CreateOptions.fromPartial({}))];
  const { notes, warnings } = await judgeOptions(runc(every));
  expect([notes.length, warnings]).toEqual([Object.keys(every).length - 2, []]);
  const judgedOlder = await judgeOptions(older(everyOlder));
  expect([judgedOlder.notes.length, judgedOlder.warnings]).toEqual([Object.keys(everyOlder).length - 1, []]);
});

test("an unknown type, and bytes that are none of the type", async () => {
  await expect(judgeOptions({ typeUrl: "io.example.Options", value: Buffer.of() })).rejects.toThrow(
    'the runtime options are of an unknown type, "io.example.Options"',
  );
  await expect(judgeOptions({ typeUrl: "toString", value: Buffer.of() })).rejects.toThrow("unknown type");
  await expect(judgeOptions({ typeUrl: "containerd.runc.v1.Options", value: Buffer.from([0x0a, 0xff]) })).rejects.toThrow(
    "the runtime options are no containerd.runc.v1.Options",
  );
  await expect(judgeOptions(cri({ body: "= x" }))).rejects.toThrow("the runtime options hold no TOML");
});
