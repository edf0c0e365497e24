import { existsSync, mkdirSync, mkdtempSync, readdirSync, rmSync, statSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, expect, test } from "vitest";
import { identify } from "../host/process-identity.ts";
import {
  claimPool,
  isStandby,
  listPools,
  memberSocket,
  type PoolRecord,
  poolFolder,
  poolLeftovers,
  poolName,
  poolRoot,
  removePoolFolder,
  spareName,
  standbyName,
} from "./pool-folder.ts";

let folder: string;
let root: string;
const self: PoolRecord = { process: identify(process.pid) ?? { pid: 0, start: 0 }, size: 2, machine: "a machine" };

beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), "husk-pool-"));
  root = join(folder, "pools");
});
afterEach(() => rmSync(folder, { recursive: true }));

test("pools are where HUSK_POOL says, or in the run folder of the user", () => {
  expect(poolRoot({}, 0)).toBe("/run/husk-pool");
  expect(poolRoot({ XDG_RUNTIME_DIR: "/run/user/7" }, 7)).toBe("/run/user/7/husk-pool");
  expect(poolRoot({ XDG_RUNTIME_DIR: "" }, 7)).toBeUndefined();
  expect(poolRoot({ HUSK_POOL: "/x" }, 0)).toBe("/x");
  expect(poolRoot({ HUSK_POOL: "" }, 0)).toBeUndefined();
});

test("a pool's folder is its owner's alone, and has its record from the beginning", () => {
  const claimed = claimPool(root, "k", self);
  expect(claimed).toEqual(poolFolder(root, "k"));
  expect(statSync(claimed.path).mode & 0o777).toBe(0o700);
  expect(listPools(root)).toEqual([{ folder: claimed, record: self, alive: true, ready: 0 }]);
});

test("a keeper's pools are told from those that somebody has asked for", () => {
  for (const kind of ["folder", "image", "shim"] as const) {
    const names = [standbyName("k", kind), spareName("k", kind)].filter((name) => name !== undefined);
    expect(names.map(isStandby)).toEqual(kind === "shim" ? [true] : [true, true]);
  }
  for (const shares of [true, false]) expect(isStandby(poolName("k", shares))).toBe(false);
});

test("there is one pool of a kind", () => {
  claimPool(root, "k", self);
  expect(() => claimPool(root, "k", self)).toThrow("there is a pool k already");
  claimPool(root, "l", self);
  expect(readdirSync(root)).toEqual(["k", "l"]);
});

test("a pool counts the sockets at which sandboxes wait", () => {
  const { path } = claimPool(root, "k", self);
  mkdirSync(join(path, "1"));
  for (const name of ["1", "2"]) writeFileSync(memberSocket(path, name), "");
  expect(listPools(root)[0]?.ready).toBe(2);
});

test("a pool whose process is another's or gone is dead, and so is one that cannot be read", () => {
  claimPool(root, "k", { ...self, process: { ...self.process, start: self.process.start + 1 } });
  writeFileSync(join(claimPool(root, "l", self).path, "pool.json"), "{");
  expect(listPools(root).map(({ alive }) => alive)).toEqual([false, false]);
});

test("the folder of all pools goes with the last", () => {
  const [k, l] = [claimPool(root, "k", self), claimPool(root, "l", self)];
  removePoolFolder(k);
  expect(readdirSync(root)).toEqual(["l"]);
  removePoolFolder(l);
  removePoolFolder(l);
  expect(existsSync(root)).toBe(false);
  expect([listPools(root), poolLeftovers(root)]).toEqual([[], []]);
});

test("what an interrupted making has left is no pool", () => {
  mkdirSync(join(root, "~new-x"), { recursive: true });
  expect([listPools(root), poolLeftovers(root)]).toEqual([[], [join(root, "~new-x")]]);
});
