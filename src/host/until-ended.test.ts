import { spawn } from "node:child_process";
import { expect, test } from "vitest";
import { identify, type ProcessIdentity } from "./process-identity.ts";
import { untilEnded } from "./until-ended.ts";

function started(): { readonly end: () => boolean; readonly process: ProcessIdentity } {
  const child = spawn("cat", { stdio: ["pipe", "ignore", "ignore"] });
  const process = identify(child.pid ?? 0);
  if (process === undefined) throw new Error("cat did not start");
  return { end: () => child.kill("SIGKILL"), process };
}

test("waits for the last one, and names one that does not end", async () => {
  const [first, second] = [started(), started()];
  first.end();
  expect(await untilEnded([first.process], 60_000)).toBeUndefined();
  expect(await untilEnded([first.process, second.process], 0)).toEqual(second.process);
  const ended = untilEnded([second.process, first.process], 60_000);
  second.end();
  expect(await ended).toBeUndefined();
  expect(await untilEnded([], 0)).toBeUndefined();
});
