import type { HookPrograms } from "../hook-programs.ts";
import type { Sources } from "../sources.ts";
import type { Namespace } from "../types.ts";

/** What a namespace's path leads to in the guest: the sandbox's own, which no container made, or that of another container in the same sandbox. */
export type GuestNamespace = "sandbox" | { readonly container: string };

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
  /** Where a namespace's path leads that can be joined in the guest, since the container shares its sandbox with whoever has it. */
  readonly guestNamespace?: (namespace: Namespace) => GuestNamespace | undefined;
  /** Whether a path leads to the host's own network namespace. */
  readonly isHostNetwork?: (path: string) => boolean;
}

export interface Finding {
  readonly verdict: "refused" | "noted";
  /** Such as `linux.intelRdt`. */
  readonly path: string;
  readonly reason: string;
}
