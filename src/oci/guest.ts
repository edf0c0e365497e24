/**
 * What the guest has of its own: the devices that it shares with no host, and the file systems that its kernel makes out of nothing.
 */
import type { DeviceNumber } from "./sources.ts";

interface GuestDevice extends DeviceNumber {
  readonly path: string;
}

/** Character devices by their numbers, which are the same on every Linux. */
const devices: readonly GuestDevice[] = [
  { path: "/dev/null", major: 1, minor: 3 },
  { path: "/dev/zero", major: 1, minor: 5 },
  { path: "/dev/full", major: 1, minor: 7 },
  { path: "/dev/random", major: 1, minor: 8 },
  { path: "/dev/urandom", major: 1, minor: 9 },
  { path: "/dev/kmsg", major: 1, minor: 11 },
  { path: "/dev/tty", major: 5, minor: 0 },
  { path: "/dev/console", major: 5, minor: 1 },
  { path: "/dev/ptmx", major: 5, minor: 2 },
  { path: "/dev/net/tun", major: 10, minor: 200 },
  { path: "/dev/fuse", major: 10, minor: 229 },
];

/** The guest's own device of these numbers: where it is in the guest, or undefined where it has none. */
export function guestDevice({ major, minor }: DeviceNumber): string | undefined {
  return devices.find((device) => device.major === major && device.minor === minor)?.path;
}

/** File systems that need neither a device nor a server, so that the guest's kernel can mount its own. */
const fileSystems: ReadonlySet<string> = new Set([
  "proc",
  "sysfs",
  "tmpfs",
  "ramfs",
  "devpts",
  "devtmpfs",
  "mqueue",
  "cgroup",
  "cgroup2",
  "bpf",
  "debugfs",
  "tracefs",
  "securityfs",
  "configfs",
  "fusectl",
  "hugetlbfs",
]);

export function guestCanMount(fileSystem: string): boolean {
  return fileSystems.has(fileSystem);
}

/** The guest has no swap: cgroup files about it may be missing there, and what they limit is nothing. */
export function isSwapFile(cgroupFile: string): boolean {
  return cgroupFile.startsWith("memory.swap.");
}
