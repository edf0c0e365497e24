/** What is told of a pod that the Sandbox API made: to `crictl inspectp`, and to NRI's plugins. A pod with a pause container has that container's instead. */
import { statfs } from "node:fs/promises";
import type { Any } from "../gen/google/protobuf/any.ts";
import { nsfsMagic } from "../host/namespaces.ts";
import { stringifyJson } from "../oci/json.ts";
import type { Spec } from "../oci/types.ts";
import type { TaskProcess } from "./task-process.ts";

/** A pod has neither a program nor a root file system. */
export type PodSpec = Pick<Spec, "ociVersion" | "hostname" | "annotations" | "linux">;

/** As containerd names the type. */
const specType = "types.containerd.io/opencontainers/runtime-spec/1/Spec";

/** The file systems of a namespace that is bound to a path, and of one that a process's folder shows: the latter is PROC_SUPER_MAGIC of linux/magic.h. */
const namespaceFilesystems: ReadonlySet<number> = new Set([nsfsMagic, 0x9fa0]);

/** A pod's specification as its shim has read it, with the network namespace that it was given beside it ("": none). */
export function toldSpec({ ociVersion, hostname, annotations, linux }: Spec, netns: string): PodSpec {
  const others = (linux?.namespaces ?? []).filter(({ type }) => type !== "network");
  const network = { type: "network" as const, ...(netns !== "" && { path: netns }) };
  return {
    ociVersion,
    ...(hostname !== undefined && { hostname }),
    ...(annotations !== undefined && { annotations }),
    linux: { ...linux, namespaces: [...others, network] },
  };
}

export function packPodSpec(spec: PodSpec): Any {
  return { typeUrl: specType, value: Buffer.from(stringifyJson(spec)) };
}

/** The verbose part of a pod's status, in the words that containerd has for a pause container's. */
export async function podInfo(pod: { process: TaskProcess; netns: string; spec: PodSpec }): Promise<Record<string, string>> {
  const info = {
    pid: pod.process.pid,
    processStatus: pod.process.status,
    netNamespaceClosed: pod.netns !== "" && !(await isNamespace(pod.netns)),
    runtimeSpec: pod.spec,
  };
  return { info: stringifyJson(info) };
}

async function isNamespace(path: string): Promise<boolean> {
  try {
    return namespaceFilesystems.has((await statfs(path)).type);
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === "ENOENT") return false;
    throw error;
  }
}
