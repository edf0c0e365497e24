import { expect, test } from "vitest";
import { blockIoSettings } from "./block-io.ts";

const disk = { major: 254, minor: 0 };
const limits = {
  weight: 500,
  weightDevice: [{ ...disk, weight: 10 }],
  throttleReadBpsDevice: [{ ...disk, rate: 1_000_000 }],
  throttleWriteIOPSDevice: [{ ...disk, rate: 0 }],
};
const lines = (version: 1 | 2) => blockIoSettings(version, "/nowhere", limits).map(({ file, value }) => `${file}=${value}`);

test("the files of cgroup v1", () => {
  expect(lines(1)).toEqual([
    "blkio.weight=500",
    "blkio.weight_device=254:0 10",
    "blkio.throttle.read_bps_device=254:0 1000000",
    "blkio.throttle.write_iops_device=254:0 0",
  ]);
});

test("the files of cgroup v2, weights on its scale", () => {
  expect(lines(2)).toEqual(["io.weight=4950", "io.weight=254:0 1", "io.max=254:0 rbps=1000000", "io.max=254:0 wiops=max"]);
});

test("zeros, as Docker writes them, are no weights", () => {
  expect(blockIoSettings(1, "/nowhere", { weight: 0, weightDevice: [{ ...disk, weight: 0 }] })).toEqual([]);
});
