import { expect, test } from "vitest";
import { stringifyJson } from "../oci/json.ts";
import { readStats, runcStats } from "./stats.ts";

const files = {
  "cpu.stat": "usage_usec 1500\nuser_usec 1000\nsystem_usec 500\nnr_periods 4\nnr_throttled 1\nthrottled_usec 7\n",
  "cpuset.cpus.effective": "0-1,4\n",
  "cpuset.mems.effective": "0\n",
  "memory.current": "4096\n",
  "memory.max": "max\n",
  "memory.stat": "anon 1024\nfile 2048\nkernel 512\n",
  "memory.events": "low 0\nhigh 0\nmax 3\noom 1\noom_kill 1\n",
  "pids.current": "2\n",
  "pids.max": "max\n",
  "io.stat": "254:0 rbytes=100 wbytes=200 rios=1 wios=2 dbytes=0 dios=0\n",
  "hugetlb.2MB.current": "0\n",
  "hugetlb.2MB.events": "max 5\n",
};

test("the files of cgroup v2 in runc's words, nanoseconds for microseconds", () => {
  expect(JSON.parse(stringifyJson(runcStats(files)))).toMatchObject({
    cpu: {
      usage: { total: 1_500_000, user: 1_000_000, kernel: 500_000 },
      throttling: { periods: 4, throttledPeriods: 1, throttledTime: 7000 },
    },
    cpuset: { cpus: [0, 1, 4], mems: [0] },
    memory: { cache: 2048, usage: { usage: 4096, failcnt: 3 }, kernel: { usage: 512 }, raw: { anon: 1024 } },
    pids: { current: 2 },
    blkio: {
      ioServiceBytesRecursive: [
        { major: 254, minor: 0, op: "Read", value: 100 },
        { major: 254, minor: 0, op: "Write", value: 200 },
      ],
      ioServicedRecursive: [
        { major: 254, minor: 0, op: "Read", value: 1 },
        { major: 254, minor: 0, op: "Write", value: 2 },
      ],
    },
    hugetlb: { "2MB": { failcnt: 5 } },
  });
  expect(stringifyJson(runcStats(files))).toContain('"limit":18446744073709551615');
});

test("a guest's nonsense is no number, and no text is printed of it", () => {
  const text = stringifyJson(runcStats({ "memory.current": "-1", "cpu.stat": "usage_usec x\n\u001b[31m 5\n", "pids.current": "1e9" }));
  expect(JSON.parse(text)).toMatchObject({ cpu: { usage: { total: 0 } }, pids: {} });
  expect(() => readStats({ files: { a: 1 } })).toThrow("the guest's statistics cannot be read");
});
