/** Mounts: what `planMount` refuses or has a word about. */
import { planMount } from "../mount-plan.ts";
import { bindSource } from "../mounts.ts";
import type { Spec } from "../types.ts";
import type { Circumstances, Finding } from "./finding.ts";

export function judgeMounts(spec: Spec, { bundle, sources }: Circumstances): Finding[] {
  return (spec.mounts ?? []).flatMap((mount, index): Finding[] => {
    const plan = planMount(mount, sources.get(index), bindSource(mount, bundle));
    const path = `mounts[${index}]`;
    if (plan.action === "refuse") return [{ verdict: "refused", path, reason: plan.reason }];
    return plan.note === undefined ? [] : [{ verdict: "noted", path, reason: plan.note }];
  });
}
