import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, expect, test } from "vitest";
import { identify, type ProcessIdentity } from "../host/process-identity.ts";
import { findNeighbour, namespacesOf } from "./neighbour.ts";
import { type ContainerRecord, claimContainer } from "./record.ts";

let root: string;
beforeEach(() => {
  root = mkdtempSync(join(tmpdir(), "husk-neighbour-"));
});
afterEach(() => rmSync(root, { recursive: true }));

function self(): ProcessIdentity {
  const identity = identify(process.pid);
  if (identity === undefined) throw new Error("this process must be found");
  return identity;
}

/** A container that this process stands in for, and supervises. */
function claim(id: string, change: Partial<ContainerRecord> = {}): void {
  claimContainer(root, {
    version: 1,
    ociVersion: "1.2.1",
    id,
    status: "running",
    pid: process.pid,
    pidStart: self().start,
    supervisor: self(),
    bundle: "/b",
    rootfs: "/b/rootfs",
    created: "2026-01-01T00:00:00Z",
    owner: "root",
    annotations: {},
    terminal: false,
    foreground: false,
    poststop: [],
    ...change,
  });
}

test("a neighbour is who has the network namespace, by whatever path it is named", () => {
  expect(findNeighbour(root, "/proc/self/ns/net")).toBeUndefined();
  claim("first", { pid: 0, pidStart: 0, status: "stopped" });
  claim("second");
  expect(findNeighbour(root, "/proc/self/ns/net")?.id).toBe("second");
  expect(findNeighbour(root, `/proc/${process.pid}/task/${process.pid}/ns/net`)?.id).toBe("second");
  expect(findNeighbour(root, "/proc/self/ns/uts")).toBeUndefined();
});

test("a PID that is somebody else's by now makes no neighbour, and a path to nothing is an error", () => {
  claim("first", { pidStart: self().start + 1 });
  expect(findNeighbour(root, "/proc/self/ns/net")).toBeUndefined();
  expect(() => findNeighbour(root, join(root, "gone"))).toThrow(`config.json: linux.namespaces: ${join(root, "gone")} is no namespace`);
});

test("the namespaces of a stand-in are its container's, for those with the same supervisor", () => {
  claim("first");
  const find = namespacesOf(root, self());
  expect(find({ type: "ipc", path: `/proc/${process.pid}/ns/ipc` })).toEqual({ container: "first" });
  expect(find({ type: "pid", path: `/proc/${process.pid}/ns/pid` })).toEqual({ container: "first" });
  expect(find({ type: "user", path: `/proc/${process.pid}/ns/user` })).toEqual({ container: "first" });
  expect(find({ type: "mount", path: `/proc/${process.pid}/ns/mnt` })).toBeUndefined();
  expect(find({ type: "ipc", path: "/proc/1/ns/ipc" })).toBeUndefined();
  expect(find({ type: "ipc", path: "/run/ns/ipc" })).toBeUndefined();
  expect(namespacesOf(root, { pid: 1, start: 0 })({ type: "ipc", path: `/proc/${process.pid}/ns/ipc` })).toBeUndefined();
});
