/** Capabilities that a process does not get, as with runc, which says so in the same words. */
import { capabilityNames } from "../capability-names.ts";
import type { Capabilities, Process } from "../types.ts";
import type { Finding } from "./finding.ts";

const known = new Set(capabilityNames);

export function judgeCapabilities({ capabilities = {} }: Process): Finding[] {
  return [...unknownOnes(capabilities), ...ambientOnes(capabilities)];
}

/** Those that the guest's kernel does not know are left out. */
function unknownOnes(capabilities: Capabilities): Finding[] {
  const unknown = new Set(
    Object.values(capabilities)
      .flat()
      .filter((name) => !known.has(name)),
  );
  if (unknown.size === 0) return [];
  const reason = `ignoring unknown or unavailable capabilities: [${[...unknown].join(" ")}]`;
  return [{ verdict: "noted", path: "process.capabilities", reason }];
}

/** Ambient ones are had only where they are permitted and inheritable as well. */
function ambientOnes({ ambient = [], permitted = [], inheritable = [] }: Capabilities): Finding[] {
  const lacking = ambient.filter((name) => known.has(name) && !(permitted.includes(name) && inheritable.includes(name)));
  const reason = (name: string): string => `can't raise ambient capability ${name}: it is not both permitted and inheritable`;
  return lacking.map((name) => ({ verdict: "noted", path: "process.capabilities.ambient", reason: reason(name) }));
}
