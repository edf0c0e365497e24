/** Hooks: those of the kind createContainer run in the guest, which must be able to. */
import type { Spec } from "../types.ts";
import type { Circumstances, Finding } from "./finding.ts";

export function judgeHooks(spec: Spec, { hookPrograms }: Circumstances): Finding[] {
  return (spec.hooks?.createContainer ?? []).flatMap((_, index): Finding[] => {
    const program = hookPrograms?.get(index);
    if (program?.kind !== "foreign") return [];
    const reason = `it runs in the container's namespaces, and so in the guest: ${program.reason}`;
    return [{ verdict: "refused", path: `hooks.createContainer[${index}]`, reason }];
  });
}
