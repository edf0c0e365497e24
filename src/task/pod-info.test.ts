import { expect, test } from "vitest";
import type { Spec } from "../oci/types.ts";
import { packPodSpec, podInfo, toldSpec } from "./pod-info.ts";
import type { TaskProcess } from "./task-process.ts";

const spec: Spec = {
  ociVersion: "1.1.0",
  hostname: "web",
  process: { cwd: "/", args: ["pause"], user: { uid: 0, gid: 0 } },
  root: { path: "rootfs" },
  annotations: { a: "b" },
  linux: { cgroupsPath: "/pods/web", namespaces: [{ type: "network", path: "/elsewhere" }, { type: "ipc" }] },
};
const process = { pid: 7, status: "running" } as TaskProcess;

test("a pod's specification has its network namespace, and neither a program nor a root that it lacks", () => {
  expect(toldSpec(spec, "/run/netns/web")).toEqual({
    ociVersion: "1.1.0",
    hostname: "web",
    annotations: { a: "b" },
    linux: { cgroupsPath: "/pods/web", namespaces: [{ type: "ipc" }, { type: "network", path: "/run/netns/web" }] },
  });
  expect(toldSpec(spec, "").linux?.namespaces).toEqual([{ type: "ipc" }, { type: "network" }]);
});

test("it is packed as containerd unpacks it, its numbers of 64 bits whole", () => {
  const packed = packPodSpec({ ociVersion: "1.1.0", linux: { resources: { pids: { limit: 9223372036854775807n } } } });
  expect(packed.typeUrl).toBe("types.containerd.io/opencontainers/runtime-spec/1/Spec");
  expect(String(packed.value)).toBe('{"ociVersion":"1.1.0","linux":{"resources":{"pids":{"limit":9223372036854775807}}}}');
});

test.each([
  ["/proc/self/ns/net", false],
  ["/proc/self/ns/gone", true],
  ["/", true],
  ["", false],
])("a network namespace at %j counts as closed: %s", async (netns, closed) => {
  const { info = "" } = await podInfo({ process, netns, spec: toldSpec(spec, netns) });
  expect(JSON.parse(info)).toMatchObject({
    pid: 7,
    processStatus: "running",
    netNamespaceClosed: closed,
    runtimeSpec: { hostname: "web" },
  });
});
