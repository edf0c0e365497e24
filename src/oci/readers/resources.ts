/** The `linux.resources` object: of a bundle, and of `update`. */
import { boolean, checked, integer, list, map, nonEmptyString, object, oneOf, optional, type Reader, string } from "../../narrow.ts";
import type {
  BlockIo,
  Cpu,
  DeviceRule,
  HugepageLimit,
  Memory,
  NetworkClass,
  Rdma,
  Resources,
  ThrottleDevice,
  WeightDevice,
} from "../types.ts";
import { int64, uint16, uint32, uint64 } from "./numbers.ts";

/** A major or minor number; -1 stands for all. */
const deviceNumber = integer(-1, 0xffff_ffff);

const deviceRule: Reader<DeviceRule> = object<DeviceRule>({
  allow: boolean,
  type: optional(oneOf(["", "a", "b", "c"])),
  major: optional(deviceNumber),
  minor: optional(deviceNumber),
  access: optional(
    checked(string, (text) => (/^[rwm]*$/.test(text) ? undefined : `expected some of the letters r, w and m, got ${JSON.stringify(text)}`)),
  ),
});

const memory: Reader<Memory> = object<Memory>({
  limit: optional(int64),
  reservation: optional(int64),
  swap: optional(int64),
  kernel: optional(int64),
  kernelTCP: optional(int64),
  swappiness: optional(uint64),
  disableOOMKiller: optional(boolean),
  useHierarchy: optional(boolean),
  checkBeforeUpdate: optional(boolean),
});

/** A list of numbers and ranges, as the kernel's cpuset takes it: "0-3,7". */
const numberList: Reader<string> = checked(string, (text) =>
  /^(\d+(-\d+)?(,\d+(-\d+)?)*)?$/.test(text) ? undefined : `expected a list such as "0-3,7", got ${JSON.stringify(text.slice(0, 64))}`,
);

const cpu: Reader<Cpu> = object<Cpu>({
  shares: optional(uint64),
  quota: optional(int64),
  burst: optional(uint64),
  period: optional(uint64),
  realtimeRuntime: optional(int64),
  realtimePeriod: optional(uint64),
  cpus: optional(numberList),
  mems: optional(numberList),
  idle: optional(int64),
});

const throttles = list(object<ThrottleDevice>({ major: deviceNumber, minor: deviceNumber, rate: uint64 }));

const blockIo: Reader<BlockIo> = object<BlockIo>({
  weight: optional(uint16),
  leafWeight: optional(uint16),
  weightDevice: optional(
    list(object<WeightDevice>({ major: deviceNumber, minor: deviceNumber, weight: optional(uint16), leafWeight: optional(uint16) })),
  ),
  throttleReadBpsDevice: optional(throttles),
  throttleWriteBpsDevice: optional(throttles),
  throttleReadIOPSDevice: optional(throttles),
  throttleWriteIOPSDevice: optional(throttles),
});

/** Files of cgroup v2 by name; a slash would lead out of the container's cgroup. */
const unified: Reader<Readonly<Record<string, string>>> = checked(map(string), (files) => {
  const bad = Object.keys(files).find((name) => !/^[a-z0-9_]+(\.[a-z0-9_]+)+$/i.test(name));
  return bad === undefined ? undefined : `expected names of cgroup v2 files such as "memory.high", got ${JSON.stringify(bad.slice(0, 64))}`;
});

export const resources: Reader<Resources> = object<Resources>({
  devices: optional(list(deviceRule)),
  memory: optional(memory),
  cpu: optional(cpu),
  pids: optional(object<NonNullable<Resources["pids"]>>({ limit: optional(int64) })),
  blockIO: optional(blockIo),
  hugepageLimits: optional(list(object<HugepageLimit>({ pageSize: nonEmptyString, limit: uint64 }))),
  network: optional(
    object<NetworkClass>({
      classID: optional(uint32),
      priorities: optional(list(object<NonNullable<NetworkClass["priorities"]>[number]>({ name: nonEmptyString, priority: uint32 }))),
    }),
  ),
  rdma: optional(map(object<Rdma>({ hcaHandles: optional(uint32), hcaObjects: optional(uint32) }))),
  unified: optional(unified),
});
