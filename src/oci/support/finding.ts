import type { HookPrograms } from "../hook-programs.ts";
import type { Sources } from "../sources.ts";
import type { Namespace } from "../types.ts";

/** What the verdict depends on besides the bundle. */
export interface Circumstances {
  /** Absolute: the bundle's folder, for relative sources. */
  readonly bundle: string;
  /** From `inspectSources`. */
  readonly sources: Sources;
  /** From `inspectHookPrograms`: of the createContainer hooks. */
  readonly hookPrograms?: HookPrograms;
  /** The administrator allows the `vm` section (allow.vm_section). */
  readonly allowVmSection?: boolean;
  /** Annotations of husk's own that the administrator allows (allow.annotations). */
  readonly allowedAnnotations?: readonly string[];
  /** Whether a namespace's path is one of a sandbox that husk runs, so that it can be joined in the guest. */
  readonly isSandboxNamespace?: (namespace: Namespace) => boolean;
  /** Whether a path leads to the host's own network namespace. */
  readonly isHostNetwork?: (path: string) => boolean;
}

export interface Finding {
  readonly verdict: "refused" | "noted";
  /** Such as `linux.intelRdt`. */
  readonly path: string;
  readonly reason: string;
}
