import * as fc from "fast-check";
import { describe, expect, test } from "vitest";
import { defaultSpec } from "./default-spec.ts";
import { countCpus, demandOf, type SizeDefaults, updated, vmSize } from "./resources.ts";
import type { Resources, Spec } from "./types.ts";

const MIB = 1024 ** 2;
const defaults: SizeDefaults = {
  vcpus: 1,
  memoryBytes: 1024 * MIB,
  guestOverheadBytes: 128 * MIB,
  hostOverheadBytes: 300 * MIB,
  hostCpus: 8,
  hostMemoryBytes: 16 * 1024 * MIB,
};
const withResources = (resources: Resources, annotations: Record<string, string> = {}): Spec => ({
  ...defaultSpec,
  annotations,
  linux: { resources },
});
const size = (resources: Resources, annotations?: Record<string, string>) => vmSize(withResources(resources, annotations), defaults);

test("without limits, the defaults", () => {
  expect(size({})).toEqual({ vcpus: 1, memoryBytes: 1152 * MIB, host: { memoryBytes: 1452 * MIB } });
});

describe("vCPUs", () => {
  test.each([
    [{ quota: 100_000, period: 100_000 }, 1],
    [{ quota: 150_000, period: 100_000 }, 2],
    [{ quota: 1_000, period: 100_000 }, 1],
    [{ quota: 250_000 }, 3],
    [{ quota: 6_400_000, period: 100_000 }, 8],
    [{ quota: -1, period: 100_000 }, 1],
    [{ quota: 0, period: 0 }, 1],
    [{ quota: 400_000, period: 100_000, cpus: "0,2-3" }, 3],
  ])("%j: %i", (cpu, vcpus) => {
    expect(size({ cpu }).vcpus).toBe(vcpus);
  });

  test.each([
    [{ initial: "0", final: "1" }, {}, 2],
    [{ final: "0, 2-3" }, {}, 4],
    [{ initial: "2" }, { quota: 50_000 }, 3],
    [{ initial: "1" }, { quota: 400_000 }, 4],
    [{ initial: "64" }, {}, 8],
    [{ initial: "3" }, { cpus: "4-5" }, 2],
    [{}, {}, 1],
    [{ initial: "none" }, {}, 1],
  ])("execs on the processors %j, with %j: %i", (execCPUAffinity, cpu, vcpus) => {
    const spec = withResources({ cpu });
    const process = { ...(spec.process ?? { cwd: "/" }), execCPUAffinity };
    expect(vmSize({ ...spec, process }, defaults).vcpus).toBe(vcpus);
  });

  test("the host's cgroup gets what is about the host's processors", () => {
    expect(size({ cpu: { shares: 512, quota: 150_000, period: 100_000, cpus: "0-1", mems: "0" } }).host).toEqual({
      memoryBytes: 1452 * MIB,
      cpuShares: 512,
      cpus: "0-1",
      mems: "0",
    });
  });
});

describe("memory", () => {
  test.each<[Resources["memory"], number]>([
    [{ limit: 256 * MIB }, 384 * MIB],
    [{ limit: 256 * MIB + 1 }, 386 * MIB],
    [{ limit: -1 }, 1152 * MIB],
    [{ limit: 0 }, 1152 * MIB],
    [{ limit: 1 }, 130 * MIB],
    [{ limit: 2n ** 63n - 4096n }, (16 * 1024 + 128) * MIB],
  ])("%o", (memory, bytes) => {
    expect(size({ memory }).memoryBytes).toBe(bytes);
  });

  test("is never too little to boot", () => {
    const small = { ...defaults, guestOverheadBytes: 0 };
    expect(vmSize(withResources({ memory: { limit: 6 * MIB } }), small).memoryBytes).toBe(64 * MIB);
  });
});

test("annotations go before both; the host's processors bound them too", () => {
  expect(size({ memory: { limit: MIB } }, { "io.husk.memory": "2GiB", "io.husk.vcpus": "3" })).toMatchObject({
    vcpus: 3,
    memoryBytes: (2048 + 128) * MIB,
  });
  expect(size({}, { "io.husk.vcpus": "9999" }).vcpus).toBe(8);
  expect(() => size({}, { "io.husk.vcpus": "0" })).toThrow(
    'config.json: annotations["io.husk.vcpus"]: expected a number of vCPUs, got "0"',
  );
  expect(() => size({}, { "io.husk.memory": "1G" })).toThrow(
    'config.json: annotations["io.husk.memory"]: expected a size such as "512MiB", got "1G"',
  );
});

describe("containers that share a virtual machine", () => {
  const demand = (...containers: Resources[]) => demandOf(containers, defaults);

  test("quotas, limits and shares add up", () => {
    const one: Resources = { cpu: { quota: 50_000, period: 100_000, shares: 512 }, memory: { limit: 256 * MIB } };
    const other: Resources = { cpu: { quota: 120_000, shares: 1024 }, memory: { limit: 512 * MIB } };
    expect(demand(one, other)).toEqual({
      vcpus: 2,
      memoryBytes: (256 + 512 + 128) * MIB,
      limited: { vcpus: true, memory: true },
      host: { cpuShares: 1536 },
    });
    expect(demand(one, one)).toMatchObject({ vcpus: 1 });
  });

  test("one without a limit asks for nothing, and may live on what is there", () => {
    expect(demand({ memory: { limit: MIB } }, {})).toEqual({
      vcpus: 0,
      memoryBytes: 130 * MIB,
      limited: { vcpus: false, memory: false },
      host: {},
    });
    expect(demand({ memory: { limit: -1 }, cpu: { quota: -1 } })).toMatchObject({ vcpus: 0, memoryBytes: 0, limited: { memory: false } });
  });

  test("lists of processors are joined where each has one, and bound the processors", () => {
    expect(demand({ cpu: { cpus: "0-1", quota: 900_000 } }, { cpu: { cpus: "1,3", mems: "0" } })).toMatchObject({
      vcpus: 3,
      host: { cpus: "0-1,1,3" },
    });
    expect(demand({ cpu: { cpus: "0-1" } }, {}).host).toEqual({});
  });

  test("block I/O is a lone container's", () => {
    const blockIO = { weight: 100 };
    expect(demand({ blockIO }).host).toEqual({ blockIo: blockIO });
    expect(demand({ blockIO }, {}).host).toEqual({});
  });

  test("an update names what it changes, and zeros name nothing", () => {
    const before: Resources = { memory: { limit: 10, reservation: 5 }, cpu: { quota: 7, cpus: "0" }, pids: { limit: 3 } };
    expect(updated(before, { memory: { limit: 20n, reservation: 0 }, cpu: { shares: 2, quota: 0n, cpus: "" } })).toEqual({
      memory: { limit: 20n, reservation: 5 },
      cpu: { quota: 7, cpus: "0", shares: 2 },
      pids: { limit: 3 },
    });
    expect(updated(before, { pids: { limit: 9 } })).toEqual({ ...before, pids: { limit: 9 } });
  });
});

test("countCpus counts each processor once", () => {
  expect(countCpus("0-3,7")).toBe(5);
  expect(countCpus("0-3,2-5,3")).toBe(6);
  expect(countCpus("0-4294967295")).toBeLessThanOrEqual(65_537);
});

test("whatever is asked, the VM is one that QEMU can make", () => {
  const int64 = fc.bigInt(-(2n ** 63n), 2n ** 63n - 1n);
  fc.assert(
    fc.property(int64, int64, fc.bigInt(0n, 2n ** 64n - 1n), (limit, quota, period) => {
      const { vcpus, memoryBytes, host } = size({ memory: { limit }, cpu: { quota, period } });
      expect(vcpus).toSatisfy((count: number) => Number.isInteger(count) && count >= 1 && count <= 8);
      expect(memoryBytes % (2 * MIB)).toBe(0);
      expect(memoryBytes).toBeLessThanOrEqual(defaults.hostMemoryBytes + defaults.guestOverheadBytes);
      expect(host.memoryBytes - memoryBytes).toBe(defaults.hostOverheadBytes);
      if (limit > 0n && limit <= BigInt(defaults.hostMemoryBytes)) expect(BigInt(memoryBytes)).toBeGreaterThanOrEqual(limit);
    }),
  );
});
