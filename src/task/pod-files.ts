/**
 * What containerd binds into the containers of its own pods, from files that it writes, and leaves to the shim for a pod of the Sandbox API: the pod's name, its
 * hosts, and who resolves names, which in a cluster is the cluster.
 */
import { statSync } from "node:fs";
import { chmod, mkdir, readFile, writeFile } from "node:fs/promises";
import { join } from "node:path";
import type { DNSConfig } from "../gen/cri/v1/pod.ts";
import { hasCode } from "../host/system-error.ts";
import type { Bundle } from "../oci/bundle.ts";
import { bindSource, destinationOf, isBind } from "../oci/mounts.ts";
import type { Mount } from "../oci/types.ts";

export interface PodFiles {
  readonly hostname: string;
  /** As a kubelet says it; undefined: as the host does. */
  readonly dns: DNSConfig | undefined;
}

/** Writes the files to `folder`, and answers the mounts that show them. */
export async function writePodFiles(folder: string, { hostname, dns }: PodFiles): Promise<readonly Mount[]> {
  const texts = new Map([
    ["hostname", `${hostname}\n`],
    ["hosts", await readOfHost("/etc/hosts")],
    ["resolv.conf", dns === undefined ? await readOfHost("/etc/resolv.conf") : resolvConf(dns)],
  ]);
  await mkdir(folder, { recursive: true });
  const mounts: Mount[] = [];
  for (const [name, text] of texts) {
    const source = join(folder, name);
    await writeFile(source, text);
    await chmod(source, 0o644); // containers' users read them, whatever this process's umask is
    mounts.push({ destination: `/etc/${name}`, type: "bind", source, options: ["rbind", "rprivate"] });
  }
  return mounts;
}

/**
 * The bundle with those of a pod's files in whose place it has nothing of its own; read-only where its root is, as with containerd. A folder is nothing: containerd
 * 1.7 makes one where it misses such a file, and binds that.
 */
export function withPodFiles(bundle: Bundle, files: readonly Mount[]): Bundle {
  const { spec } = bundle;
  const places = new Set(files.map(destinationOf));
  const mounts = (spec.mounts ?? []).filter((mount) => !places.has(destinationOf(mount)) || !isFolder(mount, bundle));
  const own = new Set(mounts.map(destinationOf));
  const access = spec.root.readonly === true ? "ro" : "rw";
  const added = files
    .filter((file) => !own.has(destinationOf(file)))
    .map((file): Mount => ({ ...file, options: [...(file.options ?? []), access] }));
  return added.length === 0 ? bundle : { ...bundle, spec: { ...spec, mounts: [...mounts, ...added] } };
}

function isFolder(mount: Mount, bundle: Bundle): boolean {
  return isBind(mount) && statSync(bindSource(mount, bundle.path), { throwIfNoEntry: false })?.isDirectory() === true;
}

/** resolv.conf(5). */
function resolvConf({ servers, searches, options }: DNSConfig): string {
  const lines = [
    ...(searches.length > 0 ? [`search ${searches.join(" ")}`] : []),
    ...servers.map((server) => `nameserver ${server}`),
    ...(options.length > 0 ? [`options ${options.join(" ")}`] : []),
  ];
  return lines.map((line) => `${line}\n`).join("");
}

/** A file of the host's; nothing where it has none. */
async function readOfHost(path: string): Promise<string> {
  try {
    return await readFile(path, "utf8");
  } catch (error) {
    if (hasCode(error, "ENOENT")) return "";
    throw error;
  }
}
