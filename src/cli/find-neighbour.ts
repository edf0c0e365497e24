/** Whose sandbox a container belongs into. */
import type { Bundle } from "../oci/bundle.ts";
import { networkNamespace } from "../sandbox/plan-container.ts";
import type { ContainerRecord } from "../sandbox/record.ts";

/** The container below `root` whose sandbox the bundle's joins; undefined: it has its own. Loads what it takes for those alone that could. Throws as `findNeighbour`. */
export async function neighbourOf(bundle: Bundle, root: string): Promise<ContainerRecord | undefined> {
  const netns = networkNamespace(bundle);
  return netns === null ? undefined : (await import("../sandbox/neighbour.ts")).findNeighbour(root, netns);
}
