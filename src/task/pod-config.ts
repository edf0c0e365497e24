/** A pod's own settings as the Sandbox API brings them: CRI's PodSandboxConfig, in the words of the runtime spec. */
import { basename, join } from "node:path";
import { PodSandboxConfig } from "../gen/cri/v1/pod.ts";
import type { Any } from "../gen/google/protobuf/any.ts";
import type { Spec } from "../oci/types.ts";
import { podMemory, podPeriod, podQuota } from "./pod-annotations.ts";

/** What CRI names its message. */
const typeName = "runtime.v1.PodSandboxConfig";

/** Of options of another kind, nothing follows. */
export function podConfig(id: string, options: Any | undefined): Pick<Spec, "hostname" | "annotations" | "linux"> {
  if (options === undefined || options.typeUrl.split("/").at(-1) !== typeName) return {};
  const { hostname, linux } = PodSandboxConfig.decode(options.value);
  const { memoryLimitInBytes = 0n, cpuQuota = 0n, cpuPeriod = 0n } = linux?.resources ?? {};
  return {
    ...(hostname === "" ? {} : { hostname }),
    annotations: { [podMemory]: String(memoryLimitInBytes), [podQuota]: String(cpuQuota), [podPeriod]: String(cpuPeriod) },
    linux: {
      sysctl: linux?.sysctls ?? {},
      ...(linux === undefined || linux.cgroupParent === "" ? {} : { cgroupsPath: cgroupBelow(linux.cgroupParent, id) }),
    },
  };
}

/** A pod's cgroup below its parent, as CRI names it: a kubelet with the systemd driver gives the path of slices. */
function cgroupBelow(parent: string, id: string): string {
  const name = basename(parent);
  return name.endsWith(".slice") ? `${name}:cri-containerd:${id}` : join("/", parent, id);
}
