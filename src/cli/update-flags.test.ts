import { expect, test } from "vitest";
import { parseDuration } from "./duration.ts";
import { parseFlags } from "./flags.ts";
import { resourcesOfFlags, updateFlags } from "./update-flags.ts";

const resources = (...args: string[]) => resourcesOfFlags(parseFlags(args, updateFlags, { verb: "update", stopAtOperand: false }).flags);

test("every flag is a field of linux.resources, and no flag is none", () => {
  expect(resources()).toEqual({});
  expect(resources("--memory", "512m", "--memory-swap=-1", "--memory-reservation", "1.5GiB", "--pids-limit", "-1")).toEqual({
    memory: { limit: 512 * 1024 ** 2, swap: -1, reservation: 1.5 * 1024 ** 3 },
    pids: { limit: -1 },
  });
  expect(
    resources("--cpu-share=512", "--cpu-quota", "-1", "--cpu-period", "50000", "--cpuset-cpus", "0-1", "--blkio-weight", "100"),
  ).toEqual({
    cpu: { shares: 512, quota: -1, period: 50_000, cpus: "0-1" },
    blockIO: { weight: 100 },
  });
});

test.each([
  [["--cpu-share", "-5"], "update: cpu.shares: expected a whole number of 64 bits, not negative, got -5"],
  [["--cpuset-cpus", "a"], 'update: cpu.cpus: expected a list such as "0-3,7", got "a"'],
  [["--memory", "-2"], '--memory: expected a size such as 512m, or -1, got "-2"'],
  [["--pids-limit", "1.5"], '--pids-limit: expected a whole number, got "1.5"'],
  [["--mem-bw-schema", "x"], "--mem-bw-schema: the host's resctrl groups cannot hold processes of a guest"],
])("%j is refused", (args, message) => {
  expect(() => resources(...args)).toThrow(message);
});

test("times as Go writes them", () => {
  expect(["5s", "250ms", "1m30s", "1.5h"].map((text) => parseDuration("--interval", text))).toEqual([5000, 250, 90_000, 5_400_000]);
  for (const text of ["5", "", "0s", "-1s", "1d", "99999h"])
    expect(() => parseDuration("--interval", text)).toThrow("--interval: expected a time");
});
