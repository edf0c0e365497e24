import { spawn } from "node:child_process";
import { once } from "node:events";
import { expect, test } from "vitest";
import { standsBeside } from "./namespaces.ts";

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
