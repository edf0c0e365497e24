import { execFileSync, spawn } from "node:child_process";
import { once } from "node:events";
import { closeSync, existsSync, mkdtempSync, openSync, rmSync, statSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { expect, onTestFinished, test } from "vitest";
import { HeldNetwork, standsBeside } from "./namespaces.ts";

test("a network namespace has a path as long as it is held", () => {
  const held = new HeldNetwork("/proc/self/ns/net");
  expect(held.path.startsWith(`/proc/${process.pid}/fd/`)).toBe(true);
  expect(statSync(held.path).ino).toBe(statSync("/proc/self/ns/net").ino);
  held.release();
  expect(existsSync(held.path)).toBe(false);
});

test("what is none is named, and not kept open", () => {
  const folder = mkdtempSync(join(tmpdir(), "husk-namespaces-"));
  onTestFinished(() => rmSync(folder, { recursive: true }));
  const fifo = join(folder, "fifo");
  execFileSync("mkfifo", [fifo]);
  const next = (): number => {
    const descriptor = openSync("/dev/null", "r");
    closeSync(descriptor);
    return descriptor;
  };
  const before = next();
  expect(() => new HeldNetwork(join(folder, "absent"))).toThrow(`cannot open the network namespace ${join(folder, "absent")}`);
  expect(() => new HeldNetwork(fifo)).toThrow(`${fifo} is no network namespace`);
  expect(next()).toBe(before);
});

test("a child stands beside this process, and one with a namespace of its own does not", async () => {
  const child = spawn("sleep", ["1000"]);
  const apart = spawn("unshare", ["--user", "--map-root-user", "--uts", "sh", "-c", "echo apart; exec sleep 1000"]);
  try {
    await Promise.all([once(child, "spawn"), once(apart.stdout, "data")]);
    expect([standsBeside(process.pid), standsBeside(child.pid ?? 0), standsBeside(apart.pid ?? 0)]).toEqual([true, true, false]);
  } finally {
    for (const each of [child, apart]) each.kill("SIGKILL");
  }
  expect(standsBeside(2 ** 30)).toBe(false);
});
