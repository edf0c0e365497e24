/** Pods by the Sandbox API of containerd 1.7, where it is an experiment. */
import { test as base } from "../harness/cri/cri.ts";
import { podBySandboxApi } from "../harness/cri/sandbox-api.ts";
import { isHusk } from "../harness/runtime.ts";

const test = base.override("generation", "newer");

test.runIf(isHusk)("a pod without a pause container: its name, its settings, its network, its containers, its end", ({ cri }) =>
  podBySandboxApi(cri),
);
