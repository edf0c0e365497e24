/** What a sandbox that is cloned from a template needs on the host, as parts of its plan. */
import type { SandboxPlan, SandboxProgram } from "../host/sandbox-plan.ts";
import type { Template } from "./store.ts";

/** The descriptors of a clone's own. */
export interface CloneDescriptors {
  /** The template's RAM, which the copying program alone reads: QEMU never sees it. */
  readonly source: number;
  /** The copy. */
  readonly memory: number;
  readonly state: number;
}

/** The name of the program that copies the RAM. It ends with 0 once the copy is made and found whole. */
export const copier = "memory-copy";

/** The copy is made while QEMU starts, which takes longer. */
export function cloneParts(
  template: Template,
  helper: string,
  descriptors: CloneDescriptors,
): Pick<SandboxPlan, "open" | "memory"> & { readonly program: SandboxProgram } {
  const { source, memory, state } = descriptors;
  const { ramSum, ramBytes } = template.manifest;
  const program: SandboxProgram = {
    name: copier,
    argv: [helper, "template", "copy", "--from", String(source), "--to", String(memory), "--sum", ramSum],
    user: "user",
    fds: [source, memory],
  };
  return {
    open: [
      { fd: source, path: template.ram, write: false },
      { fd: state, path: template.state, write: false },
    ],
    memory: [{ fd: memory, bytes: ramBytes }],
    program,
  };
}
