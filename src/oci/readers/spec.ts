/** The whole of config.json. */
import {
  absolutePath,
  anything,
  boolean,
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
import type { Hook, Hooks, Mount, Root, Spec, Vm } from "../types.ts";
import { idMappings, linux } from "./linux.ts";
import { process } from "./process.ts";

const ociVersion: Reader<string> = checked(string, (version) =>
  /^1\.\d+\.\d+([-+].*)?$/.test(version) ? undefined : `expected a version 1.x.y, got ${JSON.stringify(version.slice(0, 64))}`,
);

/** Of a UTS namespace: uname(2) has room for no more. */
const name: Reader<string> = checked(string, (text) => {
  const bytes = Buffer.byteLength(text);
  return bytes > 64 ? `expected at most 64 bytes, got ${bytes}` : undefined;
});

const mount: Reader<Mount> = object<Mount>({
  destination: nonEmptyString,
  type: optional(string),
  source: optional(string),
  options: optional(list(string)),
  uidMappings: optional(idMappings),
  gidMappings: optional(idMappings),
});

const hooks = optional(
  list(object<Hook>({ path: absolutePath, args: optional(list(string)), env: optional(list(string)), timeout: optional(integer(1)) })),
);

const vm: Reader<Vm> = object<Vm>({
  hypervisor: optional(object<NonNullable<Vm["hypervisor"]>>({ path: absolutePath, parameters: optional(list(string)) })),
  kernel: optional(
    object<NonNullable<Vm["kernel"]>>({ path: absolutePath, parameters: optional(list(string)), initrd: optional(absolutePath) }),
  ),
  image: optional(object<NonNullable<Vm["image"]>>({ path: absolutePath, format: oneOf(["raw", "qcow2", "vdi", "vmdk", "vhd"]) })),
  hwConfig: optional(anything),
});

export const spec: Reader<Spec> = object<Spec>({
  ociVersion,
  process,
  root: object<Root>({ path: nonEmptyString, readonly: optional(boolean) }),
  hostname: optional(name),
  domainname: optional(name),
  mounts: optional(list(mount)),
  hooks: optional(
    object<Hooks>({
      prestart: hooks,
      createRuntime: hooks,
      createContainer: hooks,
      startContainer: hooks,
      poststart: hooks,
      poststop: hooks,
    }),
  ),
  annotations: optional(map(string)),
  linux: optional(linux),
  vm: optional(vm),
  solaris: optional(anything),
  windows: optional(anything),
  zos: optional(anything),
  freebsd: optional(anything),
});
