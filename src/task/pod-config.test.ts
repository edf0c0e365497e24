import { expect, test } from "vitest";
import { NamespaceMode, PodSandboxConfig } from "../gen/cri/v1/pod.ts";
import { cgroupOf } from "../oci/cgroups-path.ts";
import { tenantOf } from "../template/tenant.ts";
import { podConfig } from "./pod-config.ts";

const config = PodSandboxConfig.fromPartial({
  metadata: { name: "web", uid: "web-uid", namespace: "red" },
  hostname: "pod0",
  linux: {
    cgroupParent: "/kubepods/burstable",
    sysctls: { "net.ipv4.ip_forward": "1" },
    resources: { memoryLimitInBytes: 268435456n, cpuQuota: 50000n, cpuPeriod: 100000n },
  },
});

test("a pod's settings are those of the runtime spec", () => {
  const options = { typeUrl: "runtime.v1.PodSandboxConfig", value: Buffer.from(PodSandboxConfig.encode(config).finish()) };
  expect(podConfig("id", options)).toEqual({
    hostname: "pod0",
    annotations: {
      "io.kubernetes.cri.sandbox-id": "id",
      "io.kubernetes.cri.sandbox-namespace": "red",
      "io.kubernetes.cri.sandbox-name": "web",
      "io.kubernetes.cri.sandbox-uid": "web-uid",
      "io.kubernetes.cri.sandbox-memory": "268435456",
      "io.kubernetes.cri.sandbox-cpu-quota": "50000",
      "io.kubernetes.cri.sandbox-cpu-period": "100000",
    },
    linux: { sysctl: { "net.ipv4.ip_forward": "1" }, cgroupsPath: "/kubepods/burstable/id" },
  });
});

test("a pod's templates are its Kubernetes namespace's, where tenants have their own", () => {
  const options = { typeUrl: "runtime.v1.PodSandboxConfig", value: Buffer.from(PodSandboxConfig.encode(config).finish()) };
  const { annotations = {} } = podConfig("id", options);
  expect(tenantOf({ setting: "namespace", annotations, engineNamespace: "k8s.io" })).toBe("kubernetes:red");
});

test("a kubelet's slices make the cgroup a scope of systemd's", () => {
  const cgroupParent = "/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod7.slice";
  const value = Buffer.from(PodSandboxConfig.encode(PodSandboxConfig.fromPartial({ linux: { cgroupParent } })).finish());
  const { linux } = podConfig("id", { typeUrl: "runtime.v1.PodSandboxConfig", value });
  expect(linux?.cgroupsPath).toBe("kubepods-burstable-pod7.slice:cri-containerd:id");
  expect(cgroupOf(linux?.cgroupsPath, "id", undefined, true)).toEqual({
    unit: "cri-containerd-id.scope",
    slice: "kubepods-burstable-pod7.slice",
  });
});

test.each([
  [{ network: NamespaceMode.NODE }, "a VM cannot share the host's network: leave out hostNetwork of the pod"],
  [{ pid: NamespaceMode.NODE }, "a VM cannot share the host's processes: leave out hostPID of the pod"],
  [{ ipc: NamespaceMode.NODE }, "a VM cannot share the host's shared memory and message queues: leave out hostIPC of the pod"],
])("a pod that is to share %o with the host is refused", (namespaceOptions, words) => {
  const shared = PodSandboxConfig.fromPartial({ linux: { securityContext: { namespaceOptions } } });
  const value = Buffer.from(PodSandboxConfig.encode(shared).finish());
  expect(() => podConfig("id", { typeUrl: "runtime.v1.PodSandboxConfig", value })).toThrow(words);
});

test("nothing follows from options that are others, or none", () => {
  expect(podConfig("id", undefined)).toEqual({});
  expect(podConfig("id", { typeUrl: "example.Options", value: Buffer.from([1, 2, 3]) })).toEqual({});
  const empty = { typeUrl: "type.googleapis.com/runtime.v1.PodSandboxConfig", value: Buffer.alloc(0) };
  expect(podConfig("id", empty)).toMatchObject({ linux: { sysctl: {} } });
  expect(podConfig("id", empty)).not.toHaveProperty("hostname");
});
