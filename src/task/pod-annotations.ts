/** What engines say of a pod in a bundle's annotations. */
import type { Spec } from "../oci/types.ts";
import { kubernetesNamespace } from "../template/tenant.ts";

/** The pod's own limits, which containerd (1.6 and later) gives: the sums of its containers'. */
export const podMemory = "io.kubernetes.cri.sandbox-memory";
export const podQuota = "io.kubernetes.cri.sandbox-cpu-quota";
export const podPeriod = "io.kubernetes.cri.sandbox-cpu-period";

/** Whose a pod is: containerd's own words, which a pod's annotations cannot change. */
export const podIdentity = {
  id: "io.kubernetes.cri.sandbox-id",
  namespace: kubernetesNamespace,
  name: "io.kubernetes.cri.sandbox-name",
  uid: "io.kubernetes.cri.sandbox-uid",
} as const;

/** Where an engine says that a bundle is a pod's pause container, and how. */
const pauseMarks: Readonly<Record<string, string>> = {
  "io.kubernetes.cri.container-type": "sandbox", // containerd
  "io.kubernetes.cri-o.ContainerType": "sandbox", // CRI-O
  "io.kubernetes.docker.type": "podsandbox", // dockershim
};

/** Whether it is the container that stands for the pod itself. */
export function isPause(annotations: Readonly<Record<string, string>> | undefined): boolean {
  return Object.entries(pauseMarks).some(([name, value]) => annotations?.[name] === value);
}

/** A pause container's specification with the resources of its pod, of which its virtual machine's size follows; its own are next to nothing. */
export function podSpec(spec: Spec): Spec {
  const memory = positive(spec.annotations?.[podMemory]);
  const [quota, period] = [positive(spec.annotations?.[podQuota]), positive(spec.annotations?.[podPeriod])];
  return {
    ...spec,
    linux: {
      ...spec.linux,
      resources: {
        ...(memory === undefined ? {} : { memory: { limit: memory } }),
        ...(quota === undefined || period === undefined ? {} : { cpu: { quota, period } }),
      },
    },
  };
}

/** A decimal number above 0; anything else says that there is no limit. */
function positive(text: string | undefined): number | undefined {
  return text !== undefined && /^[1-9]\d{0,15}$/.test(text) ? Number(text) : undefined;
}
