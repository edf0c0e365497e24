/** Pods of containerd 2: by the Sandbox API, which it has for good, and with a pause container. */
import { expect } from "vitest";
import { test as base } from "../harness/cri/cri.ts";
import { podBySandboxApi } from "../harness/cri/sandbox-api.ts";
import { isHusk } from "../harness/runtime.ts";

const test = base.override("generation", "newest");

test.runIf(isHusk)("a pod without a pause container: its name, its settings, its network, its containers, its end", ({ cri }) =>
  podBySandboxApi(cri),
);

test("a pod with a pause container: a job's log and end, one that is killed for want of memory, a restart", async ({ cri }) => {
  const pod = await cri.pod();
  const job = await pod.run("job", "echo out; echo err >&2; exit 3");
  await expect.poll(() => pod.status(job), { timeout: 30_000 }).toMatchObject({ state: 2, exit_code: 3, reason: "Error" });
  expect(pod.log("job").split("\n").toSorted(), "the engine reads each by itself").toEqual(["", "err", "out"]);
  const hog = await pod.run("hog", "tail /dev/zero", { memoryBytes: 16 * 1024 ** 2 });
  await expect.poll(() => pod.status(hog), { timeout: 30_000 }).toMatchObject({ state: 2, exit_code: 137, reason: "OOMKilled" });
  const again = await pod.run("job", "echo again", { attempt: 1 });
  await expect.poll(() => pod.status(again), { timeout: 30_000 }).toMatchObject({ state: 2, exit_code: 0, reason: "Completed" });
  await pod.remove();
});
