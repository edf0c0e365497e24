/** The `linux` object. */
import {
  absolutePath,
  anything,
  checked,
  integer,
  list,
  map,
  nonEmptyString,
  object,
  oneOf,
  optional,
  type Reader,
  string,
} from "../../narrow.ts";
import { type Device, type IdMapping, type Linux, type Namespace, namespaceTypes, type Personality, type TimeOffset } from "../types.ts";
import { int64, uint32, userId } from "./numbers.ts";
import { resources } from "./resources.ts";
import { seccomp } from "./seccomp.ts";

const idMapping: Reader<IdMapping> = object<IdMapping>({ containerID: uint32, hostID: uint32, size: integer(1, 0xffff_ffff) });

export const idMappings: Reader<readonly IdMapping[]> = list(idMapping);

const namespaces: Reader<readonly Namespace[]> = checked(
  list(object<Namespace>({ type: oneOf(namespaceTypes), path: optional(checked(string, absoluteOrEmpty)) })),
  (all) => {
    const twice = all.find(({ type }, index) => all.findIndex((other) => other.type === type) !== index);
    return twice && `the ${twice.type} namespace is given twice`;
  },
);

function absoluteOrEmpty(path: string): string | undefined {
  return path === "" || path.startsWith("/") ? undefined : `expected an absolute path, got ${JSON.stringify(path.slice(0, 64))}`;
}

const device: Reader<Device> = checked(
  object<Device>({
    type: oneOf(["c", "b", "u", "p"]),
    path: absolutePath,
    major: optional(integer(0, 0xffff_ffff)),
    minor: optional(integer(0, 0xffff_ffff)),
    fileMode: optional(uint32),
    uid: optional(userId),
    gid: optional(userId),
  }),
  ({ type, major, minor }) =>
    type !== "p" && (major === undefined || minor === undefined) ? "expected a major and a minor number" : undefined,
);

const timeOffsets: Reader<Readonly<Record<string, TimeOffset>>> = checked(
  map(object<TimeOffset>({ secs: optional(int64), nanosecs: optional(integer(0, 999_999_999)) })),
  (offsets) => {
    const bad = Object.keys(offsets).find((clock) => clock !== "monotonic" && clock !== "boottime");
    return bad === undefined ? undefined : `expected the clocks "monotonic" and "boottime", got ${JSON.stringify(bad.slice(0, 64))}`;
  },
);

export const linux: Reader<Linux> = object<Linux>({
  uidMappings: optional(idMappings),
  gidMappings: optional(idMappings),
  sysctl: optional(map(string)),
  resources: optional(resources),
  cgroupsPath: optional(string),
  namespaces: optional(namespaces),
  devices: optional(list(device)),
  netDevices: optional(anything),
  seccomp: optional(seccomp),
  rootfsPropagation: optional(oneOf(["", "shared", "rshared", "slave", "rslave", "private", "rprivate", "unbindable", "runbindable"])),
  maskedPaths: optional(list(nonEmptyString)),
  readonlyPaths: optional(list(nonEmptyString)),
  mountLabel: optional(string),
  intelRdt: optional(anything),
  memoryPolicy: optional(anything),
  personality: optional(object<Personality>({ domain: oneOf(["LINUX", "LINUX32"]), flags: optional(list(string)) })),
  timeOffsets: optional(timeOffsets),
});
