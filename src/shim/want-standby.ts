/** Has a server stand by for the next task that is like one that has just begun. */
import type { Config } from "../config/config.ts";
import { formatSize } from "../config/setting.ts";
import { standsBeside } from "../host/namespaces.ts";
import { hasCode } from "../host/system-error.ts";
import { defaultSpec } from "../oci/default-spec.ts";
import type { Spec } from "../oci/types.ts";
import { poolRoot } from "../pool/pool-folder.ts";
import { isStandbyOrdered, orderStandby, standbyEnvironment } from "../pool/standby.ts";
import { describeVm, machineKey } from "../sandbox/plan-vm.ts";
import type { SandboxSpec } from "../sandbox/sandbox-plan.ts";
import { zygoteKeeperPid } from "../template/zygote.ts";

/**
 * Asks the keeper of the template's zygote for it, unless somebody has, where the task's sandbox could have stood by itself. `sandbox`: as it was launched;
 * `namespace`: containerd's. Throws as `describeVm`.
 */
export async function wantStandby(
  spec: Spec,
  { template, zygote, netns, disks }: Pick<SandboxSpec, "template" | "zygote" | "netns" | "disks">,
  config: Config,
  namespace: string,
): Promise<void> {
  const root = poolRoot(process.env);
  if (!config.template.standby || root === undefined || template === null || zygote === undefined) return;
  if (netns !== null || disks.length > 0 || spec.vm !== undefined || isStandbyOrdered(template, "shim")) return;
  // Its members have the keeper's namespaces, and no start of this host's would take them.
  const keeper = zygoteKeeperPid(template);
  if (keeper === undefined || !standsBeside(keeper)) return;
  const request = await describeVm(spec, config, namespace);
  const { image, vcpus, memoryBytes, accelerator, tenant } = request.shape;
  // What stands by knows nothing of whose container it will be but containerd's namespace.
  if (tenant !== (await describeVm(defaultSpec, config, namespace)).shape.tenant) return;
  try {
    orderStandby(template, "shim", {
      root,
      key: machineKey(request, config),
      machine: `${image.flavour} kernel, ${vcpus} vCPU, ${memoryBytes / 1024 / 1024} MiB, ${accelerator}, a shim standing by`,
      settings: { "vm.vcpus": String(vcpus), "vm.memory": formatSize(memoryBytes - config.vm.memoryOverhead) },
      environment: standbyEnvironment(process.env),
      engineNamespace: namespace,
    });
  } catch (error) {
    if (!hasCode(error, "ENOENT", "EROFS", "ENOSPC", "EACCES")) throw error; // the keeper is gone
  }
}
