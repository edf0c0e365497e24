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

test("a pause container that is killed leaves a pod that can be stopped and removed, with no shim behind it", async ({ cri }) => {
  const pod = await cri.pod();
  await pod.run("main", "exec sleep 1000");
  const { info } = await cri.call<{ info: { info: string } }>("PodSandboxStatus", { pod_sandbox_id: pod.id, verbose: true });
  const { pid } = JSON.parse(info.info) as { pid: number };
  expect(pid).toBeGreaterThan(1);
  process.kill(pid, "SIGKILL");
  // 1: not ready. containerd has asked the shim to end by then, which has a container yet.
  const state = async () => (await cri.call<{ status: { state: number } }>("PodSandboxStatus", { pod_sandbox_id: pod.id })).status.state;
  await expect.poll(state, { timeout: 30_000 }).toBe(1);
  await pod.remove();
});
