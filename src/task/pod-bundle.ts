/** The bundle of a pod by the Sandbox API. */
import { readFile } from "node:fs/promises";
import { join } from "node:path";
import type { Spec } from "../oci/types.ts";
import { parseSpec } from "../oci/validate.ts";
import type { podConfig } from "./pod-config.ts";

/** Whether a bundle is a pod's, and no container's: its config.json has no program, where there is one. */
export async function isPodBundle(bundle: string): Promise<boolean> {
  return !("process" in (await readConfig(bundle)));
}

/** The pod's own config.json, where there is one: it need not have a program, nor a root file system. */
export async function readPodSpec(
  bundle: string,
  config: ReturnType<typeof podConfig>,
  annotations: Readonly<Record<string, string>>,
): Promise<Spec> {
  const found = await readConfig(bundle);
  const program = { cwd: "/", args: ["pause"], user: { uid: 0, gid: 0 } };
  const whole = { ociVersion: "1.1.0", ...found, process: found["process"] ?? program, root: found["root"] ?? { path: "rootfs" } };
  const { value } = parseSpec(JSON.stringify(whole), configPath(bundle));
  const sandbox = { "io.kubernetes.cri.container-type": "sandbox" };
  return {
    ...value,
    ...config,
    linux: { ...value.linux, ...config.linux },
    annotations: { ...config.annotations, ...value.annotations, ...annotations, ...sandbox },
  };
}

function configPath(bundle: string): string {
  return join(bundle, "config.json");
}

async function readConfig(bundle: string): Promise<Record<string, unknown>> {
  const text = await readFile(configPath(bundle), "utf8").catch(() => "{}"); // containerd 1.7 writes none
  return JSON.parse(text) as Record<string, unknown>;
}
