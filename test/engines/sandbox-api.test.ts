/** Pods by the Sandbox API of containerd 1.7, where it is an experiment. */
import { expect } from "vitest";
import { test as base } from "../harness/cri/cri.ts";
import { podBySandboxApi } from "../harness/cri/sandbox-api.ts";
import { isHusk } from "../harness/runtime.ts";

const test = base.override("generation", "newer");

test.runIf(isHusk)("a pod without a pause container: its name, its settings, its network, its containers, its end", ({ cri }) =>
  podBySandboxApi(cri),
);

// Not with containerd 2.1, which dies of it before any shim is started.
test.runIf(isHusk)("a pod that is to have the host's network is refused, and leaves nothing", async ({ cri }) => {
  await expect(cri.pod({ handler: "husk-sandbox", hostNetwork: true })).rejects.toThrow(
    "a VM cannot share the host's network: leave out hostNetwork of the pod",
  );
});
