/** The asking for what is to stand by: by whoever has begun a container for which it would have done. */
import type { Config } from "../config/config.ts";
import { formatSize } from "../config/setting.ts";
import { hasCode } from "../host/system-error.ts";
import type { Spec } from "../oci/types.ts";
import { machineKey, type VmRequest } from "../sandbox/plan-vm.ts";
import type { SandboxSpec } from "../sandbox/sandbox-plan.ts";
import type { Template } from "../template/store.ts";
import { poolRoot, type StandbyKind } from "./pool-folder.ts";
import { isStandbyOrdered, orderStandby, standbyEnvironment } from "./standby.ts";

/** What may be asked for, and where. */
export interface Wanted {
  readonly kind: StandbyKind;
  readonly root: string;
  readonly template: Template;
}

/**
 * Whether a sandbox of that kind could stand by for a container that is like one which has begun: that one's sandbox was copied from a zygote, whose keeper is there to
 * be asked, and nobody has asked yet.
 */
export function mayStandBy(
  kind: StandbyKind,
  spec: Spec,
  { template, zygote }: Pick<SandboxSpec, "template" | "zygote">,
  config: Config,
): Wanted | undefined {
  const root = poolRoot(process.env);
  if (!config.template.standby || root === undefined || template === null || zygote === undefined) return undefined;
  if (spec.vm !== undefined || isStandbyOrdered(template, kind)) return undefined;
  return { kind, root, template };
}

/** Asks the keeper of the template's zygote for it. `request`: what the one that has begun was given; `engineNamespace`: where the engine has some. */
export function wantStandby({ kind, root, template }: Wanted, request: VmRequest, config: Config, engineNamespace?: string): void {
  const { image, vcpus, memoryBytes, accelerator } = request.shape;
  const what = kind === "shim" ? "a shim standing by" : "standing by";
  try {
    orderStandby(template, kind, {
      root,
      key: machineKey(request, config),
      machine: `${image.flavour} kernel, ${vcpus} vCPU, ${memoryBytes / 1024 / 1024} MiB, ${accelerator}, ${what}`,
      settings: { "vm.vcpus": String(vcpus), "vm.memory": formatSize(memoryBytes - config.vm.memoryOverhead) },
      environment: standbyEnvironment(process.env),
      ...(engineNamespace === undefined ? {} : { engineNamespace }),
    });
  } catch (error) {
    if (!hasCode(error, "ENOENT", "EROFS", "ENOSPC", "EACCES")) throw error; // the keeper is gone
  }
}
