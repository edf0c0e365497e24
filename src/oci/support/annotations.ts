/**
 * Annotations: everybody's pass through; husk's own change what runs, and come from whoever wrote the bundle, so that each needs the
 * administrator's allowance.
 */
import { ownAnnotations } from "../annotations.ts";
import type { Spec } from "../types.ts";
import type { Finding } from "./finding.ts";

const OWN_PREFIX = "io.husk.";

export function judgeAnnotations(spec: Spec, allowed: readonly string[]): Finding[] {
  return Object.keys(spec.annotations ?? {})
    .filter((name) => name.startsWith(OWN_PREFIX))
    .flatMap((name): Finding[] => {
      const path = `annotations[${JSON.stringify(name)}]`;
      const known = Object.values<string>(ownAnnotations).includes(name);
      if (!known) return [{ verdict: "refused", path, reason: `husk knows ${Object.values(ownAnnotations).join(", ")} alone` }];
      if (allowed.includes(name)) return [];
      return [{ verdict: "refused", path, reason: "the administrator does not allow it (allow.annotations)" }];
    });
}
