/** linux.cgroupsPath: a path below each hierarchy's root, or, for who has systemd make the cgroup, `slice:prefix:name`. */
import { resolve } from "node:path";
import { HuskError } from "../errors.ts";

/** A scope unit of systemd's. */
export interface ScopeName {
  readonly unit: string;
  readonly slice: string;
}

/** Characters that systemd takes in a unit's name, which has at most 255: systemd.unit(5). */
const unitName = /^[A-Za-z0-9:_.\\@-]+$/;
const maxNameLength = 255;

/**
 * Where a container's cgroup is to be: a path seen from each hierarchy's root, which is its id where none is named, as with runc, or a scope. `systemd`: whether
 * systemd makes it; undefined: where cgroupsPath has the form for that, which is all that containerd tells a shim of a kubelet's cgroup driver, and `hasSystemd`: on
 * other hosts it is a path like any other, as with runc. Throws `invalid-argument`.
 */
export function cgroupOf(
  cgroupsPath: string | undefined,
  id: string,
  systemd: boolean | undefined,
  hasSystemd: boolean,
): string | ScopeName {
  const hasItsForm = /^[^/:]+\.slice:[^/:]*:[^/:]+$/.test(cgroupsPath ?? "");
  if (systemd ?? (hasSystemd && hasItsForm)) return scopeOf(cgroupsPath, id);
  return resolve("/", cgroupsPath === undefined || cgroupsPath === "" ? id : cgroupsPath);
}

/**
 * The scope that `slice:prefix:name` stands for: `prefix-name.scope` in `slice`, as runc has it; without a prefix `name.scope`; without a slice
 * system.slice. Throws `invalid-argument`.
 */
function scopeOf(cgroupsPath: string | undefined, id: string): ScopeName {
  const path = cgroupsPath === undefined || cgroupsPath === "" ? `:husk:${id}` : cgroupsPath;
  const [slice = "", prefix = "", name = "", ...more] = path.split(":");
  if (name === "" || more.length > 0) {
    throw refused(path, `with --systemd-cgroup, expected slice:prefix:name`);
  }
  const scope = { unit: `${prefix === "" ? "" : `${prefix}-`}${name}.scope`, slice: slice === "" ? "system.slice" : slice };
  if (!scope.slice.endsWith(".slice") || scope.slice.includes("/"))
    throw refused(path, `expected the name of a slice, got ${JSON.stringify(slice)}`);
  for (const unit of [scope.unit, scope.slice]) {
    if (!unitName.test(unit) || unit.length > maxNameLength)
      throw refused(path, `systemd takes no unit of the name ${JSON.stringify(unit)}`);
  }
  return scope;
}

function refused(path: string, problem: string): HuskError {
  return new HuskError("invalid-argument", `config.json: linux.cgroupsPath: ${JSON.stringify(path)}: ${problem}`);
}
