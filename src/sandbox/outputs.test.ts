import { expect, test, vi } from "vitest";
import { OutputKind } from "../gen/agent/v1/agent.ts";
import { Outputs } from "./outputs.ts";

const target = { containerId: "c", processId: "" };
const stdout = OutputKind.OUTPUT_KIND_STDOUT;

function position(bytes: bigint) {
  return { ...target, output: stdout, bytes };
}

test("everything is here once as much has come as the guest has read, and a slow reader does not hold it up", async () => {
  const outputs = new Outputs();
  const hurry = vi.fn();
  const progress = outputs.begin(target, stdout, hurry);
  progress.add(3);
  const caughtUp = vi.fn();
  const waiting = outputs.caughtUp([position(7n)], 10_000).then(caughtUp);
  expect(hurry).toHaveBeenCalledOnce();
  expect(progress.isHurried).toBe(true);
  progress.add(3);
  await Promise.resolve();
  expect(caughtUp).not.toHaveBeenCalled();
  progress.add(1);
  await waiting;
  expect(progress.isHurried).toBe(false);
});

test("an output that the guest does not name is over, and its end on its way", async () => {
  const outputs = new Outputs();
  const progress = outputs.begin(target, stdout, () => {});
  const caughtUp = vi.fn();
  const waiting = outputs.caughtUp([], 10_000).then(caughtUp);
  progress.add(100);
  await new Promise(setImmediate);
  expect(caughtUp).not.toHaveBeenCalled();
  progress.end();
  await waiting;
});

test("without outputs there is nothing to wait for, and what never comes is an error", async () => {
  const outputs = new Outputs();
  await outputs.caughtUp([], 10_000);
  outputs.begin(target, stdout, () => {});
  await expect(outputs.caughtUp([position(1n)], 10)).rejects.toMatchObject({ code: "deadline" });
});
