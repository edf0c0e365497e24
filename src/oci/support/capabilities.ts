/** Capabilities that the guest's kernel does not know: they are left out, as with runc, which says so in the same words. */
import { capabilityNames } from "../capability-names.ts";
import type { Process } from "../types.ts";
import type { Finding } from "./finding.ts";

const known = new Set(capabilityNames);

export function judgeCapabilities({ capabilities = {} }: Process): Finding[] {
  const unknown = new Set(
    Object.values(capabilities)
      .flat()
      .filter((name) => !known.has(name)),
  );
  if (unknown.size === 0) return [];
  const reason = `ignoring unknown or unavailable capabilities: [${[...unknown].join(" ")}]`;
  return [{ verdict: "noted", path: "process.capabilities", reason }];
}
