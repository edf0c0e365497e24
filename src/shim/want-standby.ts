/** Has a server stand by for the next task that is like one that has just begun. */
import type { Config } from "../config/config.ts";
import { standsBeside } from "../host/namespaces.ts";
import { defaultSpec } from "../oci/default-spec.ts";
import type { Spec } from "../oci/types.ts";
import { mayStandBy, wantStandby as want } from "../pool/want-standby.ts";
import { describeVm } from "../sandbox/plan-vm.ts";
import type { SandboxSpec } from "../sandbox/sandbox-plan.ts";
import { zygoteKeeper } from "../template/zygote.ts";

/** Asks for it, unless somebody has, where the task's sandbox could have stood by itself. `sandbox`: as it was launched; `namespace`: containerd's. Throws as `describeVm`. */
export async function wantStandby(
  spec: Spec,
  sandbox: Pick<SandboxSpec, "template" | "zygote" | "disks">,
  config: Config,
  namespace: string,
): Promise<void> {
  const wanted = sandbox.disks.length > 0 ? undefined : mayStandBy("shim", spec, sandbox, config);
  if (wanted === undefined) return;
  // Its members have the keeper's namespaces, and no start of this host's would take them.
  const keeper = zygoteKeeper(wanted.template)?.pid;
  if (keeper === undefined || !standsBeside(keeper)) return;
  const request = await describeVm(spec, config, namespace);
  // What stands by knows nothing of whose container it will be but containerd's namespace.
  if (request.shape.tenant !== (await describeVm(defaultSpec, config, namespace)).shape.tenant) return;
  want(wanted, request, config, namespace);
}
