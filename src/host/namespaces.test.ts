import { execFileSync } from "node:child_process";
import { closeSync, existsSync, mkdtempSync, openSync, rmSync, statSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { expect, onTestFinished, test } from "vitest";
import { HeldNetwork } from "./namespaces.ts";

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
