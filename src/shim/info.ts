/** `-info`: what this runtime is and what it supports, in containerd's message. CRI tells a kubelet of it. */
import { RuntimeInfo } from "../gen/containerd/types/types.ts";
import { featureReport } from "../oci/features.ts";
import { version } from "../version.ts";

/** As containerd registers the type, whose content is JSON. */
const featuresType = "types.containerd.io/opencontainers/runtime-spec/1/features/Features";

export async function info(): Promise<void> {
  process.stdout.write(RuntimeInfo.encode(runtimeInfo()).finish());
}

export function runtimeInfo(): RuntimeInfo {
  return RuntimeInfo.fromPartial({
    name: "io.containerd.husk.v2",
    version: { version, revision: "" },
    features: { typeUrl: featuresType, value: Buffer.from(JSON.stringify(featureReport())) },
  });
}
