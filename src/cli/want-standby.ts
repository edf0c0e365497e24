/** Has a sandbox stand by for the next container that is like one that has just begun. */
import type { Config } from "../config/config.ts";
import { formatSize } from "../config/setting.ts";
import { hasCode } from "../host/system-error.ts";
import type { Spec } from "../oci/types.ts";
import { poolRoot } from "../pool/pool-folder.ts";
import { isStandbyOrdered, orderStandby, standbyEnvironment } from "../pool/standby.ts";
import { describeVm, machineKey } from "../sandbox/plan-vm.ts";
import type { SandboxSpec } from "../sandbox/sandbox-plan.ts";

/**
 * Asks for it, unless somebody has, where the container's sandbox could have stood by itself: it was copied from a zygote, whose keeper is there to be asked.
 * `sandbox`: as it was planned. Throws as `describeVm`.
 */
export async function wantStandby(
  spec: Spec,
  sandbox: Pick<SandboxSpec, "template" | "zygote" | "netns" | "shares">,
  config: Config,
): Promise<void> {
  const { template, zygote, netns, shares } = sandbox;
  const root = poolRoot(process.env);
  if (!config.template.standby || root === undefined || template === null || zygote === undefined) return;
  const kind = shares ? "folder" : "image";
  if (netns !== null || spec.vm !== undefined || isStandbyOrdered(template, kind)) return;
  const request = await describeVm(spec, config);
  const { image, vcpus, memoryBytes, accelerator } = request.shape;
  try {
    orderStandby(template, kind, {
      root,
      key: machineKey(request, config),
      machine: `${image.flavour} kernel, ${vcpus} vCPU, ${memoryBytes / 1024 / 1024} MiB, ${accelerator}, standing by`,
      settings: { "vm.vcpus": String(vcpus), "vm.memory": formatSize(memoryBytes - config.vm.memoryOverhead) },
      environment: standbyEnvironment(process.env),
    });
  } catch (error) {
    if (!hasCode(error, "ENOENT", "EROFS", "ENOSPC", "EACCES")) throw error; // the keeper is gone
  }
}
