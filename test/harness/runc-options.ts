/** What ctr asks of every runtime in the words of runc's options. */
import { expect } from "vitest";
import type { Containerd } from "./containerd.ts";

/** Expects that such options are taken, and a user namespace's mappings in force. */
export async function expectRuncOptions(containerd: Containerd): Promise<void> {
  const { status, stdout } = await containerd.run("run", ["--rm", "--no-pivot"], ["echo", "hi"]).ended();
  expect([status, stdout]).toEqual([0, "hi\n"]);
  const mapped = ["--rm", "--uidmap", "0:1000:1000", "--gidmap", "0:1000:1000"];
  const { stdout: map } = await containerd.run("run", mapped, ["cat", "/proc/self/uid_map"]).ended();
  expect(map.trim().split(/\s+/)).toEqual(["0", "1000", "1000"]);
}
