import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, expect, test } from "vitest";
import { identify } from "../host/process-identity.ts";
import { claimZygote, endZygote, findZygote, hasZygote, publishZygote, type Zygote, zygoteFolder, zygoteLeftovers } from "./zygote.ts";

let folder = "";
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), "husk-zygote-"));
});
afterEach(() => rmSync(folder, { recursive: true }));

const self = identify(process.pid) ?? { pid: 0, start: 0 };
const dead = { pid: self.pid, start: self.start + 1 };
const zygote: Zygote = {
  process: self,
  socket: "/z/zygote.sock",
  memory: "/proc/1/fd/11",
  sum: "00c0ffee",
  disks: [9, 10],
  greeting: { version: { qemu: { major: 7, minor: 2, micro: 22 }, package: "" }, capabilities: ["oob"] },
};

test("one keeper has it, until it is dead", () => {
  expect(hasZygote({ folder })).toBe(false);
  expect(claimZygote({ folder })).toBe(true);
  expect([hasZygote({ folder }), claimZygote({ folder })]).toEqual([true, false]);
  writeFileSync(join(zygoteFolder({ folder }), "owner.json"), JSON.stringify(dead));
  expect(hasZygote({ folder })).toBe(false);
  expect(zygoteLeftovers({ folder })).toEqual([zygoteFolder({ folder })]);
  expect(claimZygote({ folder })).toBe(true);
  expect(zygoteLeftovers({ folder })).toEqual([]);
});

test("it is found once it is published, as long as its process lives", () => {
  claimZygote({ folder });
  expect(findZygote({ folder })).toBeUndefined();
  publishZygote({ folder }, zygote);
  expect(findZygote({ folder })).toEqual(zygote);
  publishZygote({ folder }, { ...zygote, process: dead });
  expect(findZygote({ folder })).toBeUndefined();
});

test.for([
  ["no JSON", "{"],
  ["another's", '{"socket":"/x"}'],
  ["a number of a standard stream", JSON.stringify({ ...zygote, disks: [2] })],
] as const)("a record with %s is none", ([, text]) => {
  claimZygote({ folder });
  writeFileSync(join(zygoteFolder({ folder }), "zygote.json"), text);
  expect(findZygote({ folder })).toBeUndefined();
});

test("the end of one whose keeper is dead hurts nobody", () => {
  mkdirSync(zygoteFolder({ folder }));
  writeFileSync(join(zygoteFolder({ folder }), "owner.json"), JSON.stringify(dead));
  publishZygote({ folder }, zygote);
  endZygote({ folder });
  expect(findZygote({ folder })).toBeUndefined();
  endZygote({ folder: join(folder, "nothing") });
});
