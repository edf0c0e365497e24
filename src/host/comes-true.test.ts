import { spawn } from "node:child_process";
import { expect, test } from "vitest";
import { comesTrue } from "./comes-true.ts";
import { identify, isAlive, type ProcessIdentity } from "./process-identity.ts";

function started(): { readonly end: () => boolean; readonly process: ProcessIdentity } {
  const child = spawn("cat", { stdio: ["pipe", "ignore", "ignore"] });
  const process = identify(child.pid ?? 0);
  if (process === undefined) throw new Error("cat did not start");
  return { end: () => child.kill("SIGKILL"), process };
}

test("waits for the last process to end, and says where one does not", async () => {
  const [first, second] = [started(), started()];
  const haveEnded = (...processes: readonly ProcessIdentity[]) => !processes.some(isAlive);
  first.end();
  expect(await comesTrue(() => haveEnded(first.process), 60_000)).toBe(true);
  expect(await comesTrue(() => haveEnded(first.process, second.process), 0)).toBe(false);
  const ended = comesTrue(() => haveEnded(second.process, first.process), 60_000);
  second.end();
  expect(await ended).toBe(true);
  expect(await comesTrue(() => haveEnded(), 0)).toBe(true);
});
