/**
 * For whom a template is. Clones of one template have the same layout of their kernel's memory and the same secrets that a kernel draws at its boot: who knows
 * them of his own guest knows them of the others'. So tenants that do not trust each other do not share one.
 */
import { isName } from "../config/setting.ts";
import { HuskError } from "../errors.ts";
import { ownAnnotations } from "../oci/annotations.ts";

/** The tenant of a template that is for everybody. */
export const everybody = "";

/** Where containerd writes down a pod's Kubernetes namespace; a pod's own annotations cannot change it. */
export const kubernetesNamespace = "io.kubernetes.cri.sandbox-namespace";
/** Likewise CRI-O. */
const namespaceAnnotations = [kubernetesNamespace, "io.kubernetes.cri-o.Namespace"];

/** What tells whose a sandbox is. */
export interface TenantSources {
  /** The setting template.tenant: "shared", "namespace" or a name. */
  readonly setting: string;
  readonly annotations: Readonly<Record<string, string>>;
  /** The engine's own namespace, such as containerd's "default"; absent where the engine has none. */
  readonly engineNamespace?: string;
}

/**
 * The tenant, as a text that says where its name is from, so that no two sorts can meet: "name:acme", "kubernetes:default", "containerd:moby", or `everybody`.
 * The bundle's annotation, which was allowed, comes before the setting. Throws `invalid-argument`.
 */
export function tenantOf({ setting, annotations, engineNamespace }: TenantSources): string {
  const annotated = annotations[ownAnnotations.tenant];
  if (annotated !== undefined) {
    if (isName(annotated)) return `name:${annotated}`;
    const expected = 'a name such as "acme", of up to 63 letters, digits and ._-';
    throw new HuskError(
      "invalid-argument",
      `config.json: annotations["${ownAnnotations.tenant}"]: expected ${expected}, got ${JSON.stringify(annotated.slice(0, 64))}`,
    );
  }
  if (setting === "shared") return everybody;
  if (setting !== "namespace") return `name:${setting}`;
  const namespace = namespaceAnnotations.map((name) => annotations[name]).find((value) => value !== undefined && value !== "");
  if (namespace !== undefined) return `kubernetes:${namespace.slice(0, 253)}`;
  return engineNamespace === undefined || engineNamespace === "" ? everybody : `containerd:${engineNamespace.slice(0, 253)}`;
}
