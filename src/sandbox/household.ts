/** What the supervisors of a sandbox's containers have in common, and say in common. */
import type { SandboxHome } from "./sandbox-home.ts";
import type { SharedSandbox } from "./shared-sandbox.ts";

export interface Household {
  readonly shared: SharedSandbox;
  readonly home: SandboxHome;
  /** See `ContainerPlan.memory`. */
  readonly memory: Map<string, string>;
}

/** Why nobody joins the sandbox of that container any more. */
export function stopping(id: string): string {
  return `config.json: linux.namespaces: container "${id}", whose network namespace is named, is stopping`;
}
