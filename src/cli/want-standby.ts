/** Has a sandbox stand by for the next container that is like one that has just begun. */
import type { Config } from "../config/config.ts";
import type { Spec } from "../oci/types.ts";
import { mayStandBy, wantStandby as want } from "../pool/want-standby.ts";
import { describeVm } from "../sandbox/plan-vm.ts";
import type { SandboxSpec } from "../sandbox/sandbox-plan.ts";

/** Asks for it, unless somebody has, where the container's sandbox could have stood by itself. `sandbox`: as it was planned. Throws as `describeVm`. */
export async function wantStandby(spec: Spec, sandbox: Pick<SandboxSpec, "template" | "zygote" | "shares">, config: Config): Promise<void> {
  const wanted = mayStandBy(sandbox.shares ? "folder" : "image", spec, sandbox, config);
  if (wanted !== undefined) want(wanted, await describeVm(spec, config), config);
}
