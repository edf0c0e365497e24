import { expect, test } from "vitest";
import { Metrics } from "../gen/containerd/cgroups/v2/metrics.ts";
import { TaskExit } from "../gen/containerd/events/task.ts";
import { packAny } from "./any.ts";

test("a message goes by its bare full name, and what is left out is empty", () => {
  const any = packAny(TaskExit, { containerId: "a", exitStatus: 137, exitedAt: { seconds: -62_135_596_800n } });
  expect(any.typeUrl).toBe("containerd.events.TaskExit");
  // Fields 1, 4 and 5; the year 1 is a negative 64-bit varint.
  expect(any.value.toString("hex")).toBe("0a01612089012a0b088092b8c398feffffff01");
  expect(TaskExit.decode(any.value).exitedAt).toEqual({ seconds: -62_135_596_800n, nanos: 0 });
});

test("limits of a cgroup are whole 64-bit numbers", () => {
  const any = packAny(Metrics, { pids: { current: 1n, limit: 2n ** 64n - 1n } });
  expect(any.typeUrl).toBe("io.containerd.cgroups.v2.Metrics");
  expect(Metrics.decode(any.value).pids?.limit).toBe(2n ** 64n - 1n);
});
