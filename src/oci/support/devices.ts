/**
 * Devices: the guest has the usual ones of its own, and none of the host's. A privileged container's bundle lists whatever the host has,
 * which nobody asked for by name: those are left out, and the log says so.
 */
import { guestDevice } from "../guest.ts";
import type { Device, DeviceRule, Resources, Spec } from "../types.ts";
import type { Finding } from "./finding.ts";

/** How many of the devices that are left out are named. */
const MAX_NAMED = 5;

/** Whether the guest has or can make the device. */
export function guestHasDevice({ type, major = 0, minor = 0 }: Device): boolean {
  return type === "p" || (type !== "b" && guestDevice({ major, minor }) !== undefined);
}

/** Whether the last rule that holds for all devices allows all of them: what engines write for a privileged container. */
export function isPrivileged(resources: Resources | undefined): boolean {
  const last = resources?.devices?.findLast(isAboutAll);
  return last !== undefined && last.allow;
}

function isAboutAll({ type = "", major = -1, minor = -1, access = "" }: DeviceRule): boolean {
  return (type === "" || type === "a") && major === -1 && minor === -1 && (access === "" || access.includes("m"));
}

export function judgeDevices(spec: Spec): Finding[] {
  const all = spec.linux?.devices ?? [];
  const foreign = all.map((device, index) => ({ device, index })).filter(({ device }) => !guestHasDevice(device));
  if (foreign.length === 0) return [];
  if (isPrivileged(spec.linux?.resources)) {
    const named = foreign.slice(0, MAX_NAMED).map(({ device }) => device.path);
    const more = foreign.length > MAX_NAMED ? ` and ${foreign.length - MAX_NAMED} more` : "";
    return [{ verdict: "noted", path: "linux.devices", reason: `the host's devices stay on the host: ${named.join(", ")}${more}` }];
  }
  return foreign.map(({ device, index }): Finding => {
    const numbers = `${device.type} ${device.major}:${device.minor}`;
    const reason = `${device.path} (${numbers}) is a device of the host, which the guest does not have`;
    return { verdict: "refused", path: `linux.devices[${index}]`, reason };
  });
}
