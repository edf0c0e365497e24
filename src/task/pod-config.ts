/** A pod's own settings as the Sandbox API brings them: CRI's PodSandboxConfig, in the words of the runtime spec. */
import { basename, join } from "node:path";
import { HuskError } from "../errors.ts";
import { type DNSConfig, NamespaceMode, PodSandboxConfig } from "../gen/cri/v1/pod.ts";
import type { Any } from "../gen/google/protobuf/any.ts";
import type { Spec } from "../oci/types.ts";
import { podIdentity, podMemory, podPeriod, podQuota } from "./pod-annotations.ts";

/** What CRI names its message. */
const typeName = "runtime.v1.PodSandboxConfig";

/** What a pod may share with the host, elsewhere. */
const hostNamespaces = [
  ["network", "network", "hostNetwork"],
  ["pid", "processes", "hostPID"],
  ["ipc", "shared memory and message queues", "hostIPC"],
] as const;

/** Of options of another kind, nothing follows. Throws `invalid-argument` for a pod that is to share what a virtual machine cannot. */
export function podConfig(id: string, options: Any | undefined): Pick<Spec, "hostname" | "annotations" | "linux"> {
  const config = decoded(options);
  if (config === undefined) return {};
  const { hostname, linux, metadata } = config;
  const namespaces = linux?.securityContext?.namespaceOptions;
  for (const [type, what, field] of hostNamespaces) {
    if (namespaces?.[type] === NamespaceMode.NODE)
      throw new HuskError("invalid-argument", `a VM cannot share the host's ${what}: leave out ${field} of the pod`);
  }
  const { memoryLimitInBytes = 0n, cpuQuota = 0n, cpuPeriod = 0n } = linux?.resources ?? {};
  return {
    ...(hostname === "" ? {} : { hostname }),
    annotations: {
      [podIdentity.id]: id,
      ...(metadata !== undefined && {
        [podIdentity.namespace]: metadata.namespace,
        [podIdentity.name]: metadata.name,
        [podIdentity.uid]: metadata.uid,
      }),
      [podMemory]: String(memoryLimitInBytes),
      [podQuota]: String(cpuQuota),
      [podPeriod]: String(cpuPeriod),
    },
    linux: {
      sysctl: linux?.sysctls ?? {},
      ...(linux === undefined || linux.cgroupParent === "" ? {} : { cgroupsPath: cgroupBelow(linux.cgroupParent, id) }),
    },
  };
}

/** How names are resolved in the pod, where its options say so. */
export function podDns(options: Any | undefined): DNSConfig | undefined {
  return decoded(options)?.dnsConfig;
}

function decoded(options: Any | undefined): PodSandboxConfig | undefined {
  if (options === undefined || options.typeUrl.split("/").at(-1) !== typeName) return undefined;
  return PodSandboxConfig.decode(options.value);
}

/** A pod's cgroup below its parent, as CRI names it: a kubelet with the systemd driver gives the path of slices. */
function cgroupBelow(parent: string, id: string): string {
  const name = basename(parent);
  return name.endsWith(".slice") ? `${name}:cri-containerd:${id}` : join("/", parent, id);
}
