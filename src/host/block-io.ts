/**
 * Limits of block I/O in the host's cgroup of a sandbox, where QEMU and virtiofsd read and write for its containers. What is written through the page cache is
 * held back on cgroup v2 alone: v1 does not know whose it is by the time it reaches the disk, and this is so for runc's containers too.
 */
import { existsSync } from "node:fs";
import { join } from "node:path";

interface BlockDevice {
  readonly major: number;
  readonly minor: number;
}

interface Rate extends BlockDevice {
  /** Bytes, or operations, a second. 0: no limit. */
  readonly rate: number | bigint;
}

/** As linux.resources.blockIO of the runtime spec has them. */
export interface BlockIoLimits {
  /** 10 to 1000. */
  readonly weight?: number;
  readonly weightDevice?: readonly (BlockDevice & { readonly weight?: number })[];
  readonly throttleReadBpsDevice?: readonly Rate[];
  readonly throttleWriteBpsDevice?: readonly Rate[];
  readonly throttleReadIOPSDevice?: readonly Rate[];
  readonly throttleWriteIOPSDevice?: readonly Rate[];
}

const throttles = [
  ["throttleReadBpsDevice", "blkio.throttle.read_bps_device", "rbps"],
  ["throttleWriteBpsDevice", "blkio.throttle.write_bps_device", "wbps"],
  ["throttleReadIOPSDevice", "blkio.throttle.read_iops_device", "riops"],
  ["throttleWriteIOPSDevice", "blkio.throttle.write_iops_device", "wiops"],
] as const;

/** What is to be written to which file of `folder`, one value at a time. */
export function blockIoSettings(
  version: 1 | 2,
  folder: string,
  limits: BlockIoLimits,
): { readonly file: string; readonly value: string }[] {
  const rates = throttles.flatMap(([field, v1, v2]) =>
    (limits[field] ?? []).map(({ major, minor, rate }) =>
      version === 1
        ? { file: v1, value: `${major}:${minor} ${rate}` }
        : { file: "io.max", value: `${major}:${minor} ${v2}=${Number(rate) === 0 ? "max" : rate}` },
    ),
  );
  return [...weightSettings(version, folder, limits), ...rates];
}

/** Weights act where the kernel has BFQ, or on v2 io.cost, whose scale is another one; converted as runc does. */
function weightSettings(version: 1 | 2, folder: string, { weight = 0, weightDevice = [] }: BlockIoLimits) {
  const bfq = version === 1 ? "blkio.bfq" : "io.bfq";
  const isBfq = existsSync(join(folder, `${bfq}.weight`));
  const prefix = isBfq ? bfq : version === 1 ? "blkio" : "io";
  const scaled = (given: number): number => (version === 2 && !isBfq ? 1 + Math.floor(((given - 10) * 9999) / 990) : given);
  const perDevice = version === 1 ? `${prefix}.weight_device` : `${prefix}.weight`;
  return [
    ...(weight === 0 ? [] : [{ file: `${prefix}.weight`, value: String(scaled(weight)) }]),
    ...weightDevice.flatMap(({ major, minor, weight: own = 0 }) =>
      own === 0 ? [] : [{ file: perDevice, value: `${major}:${minor} ${scaled(own)}` }],
    ),
  ];
}
