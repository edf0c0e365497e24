import { expect, test } from "vitest";
import { metricsOf } from "./metrics.ts";

const stats = { guestMemoryTotalBytes: 1000n, guestMemoryAvailableBytes: 500n, agentResidentBytes: 0n };

test("the kernel's files become containerd's numbers", () => {
  const files = {
    "pids.current": "3\n",
    "pids.max": "max\n",
    "cpu.stat": "usage_usec 30\nuser_usec 20\nsystem_usec 10\nnr_periods 5\nnr_throttled 1\nthrottled_usec 7\n",
    "memory.current": "400\n",
    "memory.max": "512\n",
    "memory.stat": "anon 100\nfile 200\ninactive_file 50\nslab_reclaimable 9\n",
    "memory.events": "low 0\nhigh 0\nmax 2\noom 1\noom_kill 1\n",
    "io.stat": "254:0 rbytes=1 wbytes=2 rios=3 wios=4 dbytes=0 dios=0\n",
  };
  expect(metricsOf({ ...stats, files })).toMatchObject({
    pids: { current: 3n, limit: 2n ** 64n - 1n },
    cpu: { usageUsec: 30n, userUsec: 20n, systemUsec: 10n, nrPeriods: 5n, nrThrottled: 1n, throttledUsec: 7n },
    memory: { usage: 400n, usageLimit: 512n, anon: 100n, file: 200n, inactiveFile: 50n, slabReclaimable: 9n },
    memoryEvents: { max: 2n, oom: 1n, oomKill: 1n },
    io: { usage: [{ major: 254n, minor: 0n, rbytes: 1n, wbytes: 2n, rios: 3n, wios: 4n }] },
  });
});

test.each(["max", "2000", ""])("no limit below the guest's memory (%j): the guest's memory is the limit", (max) => {
  expect(metricsOf({ ...stats, files: { "memory.max": max } }).memory?.usageLimit).toBe(1000n);
});

test("what the guest sends that is no number counts as nothing", () => {
  const files = {
    "memory.current": "-1",
    "cpu.stat": "usage_usec lots\n\n \n",
    "io.stat": "x\n1:y rbytes=1\n8:0 rbytes=1e9",
    "pids.current": "9".repeat(40),
  };
  expect(metricsOf({ ...stats, files })).toMatchObject({
    memory: { usage: 0n },
    cpu: { usageUsec: 0n },
    pids: { current: 0n },
    io: { usage: [{ major: 8n, rbytes: 0n }] },
  });
});

test("a container without a cgroup has used nothing", () => {
  expect(metricsOf(undefined)).toMatchObject({ memory: { usage: 0n }, cpu: { usageUsec: 0n }, io: { usage: [] } });
});
