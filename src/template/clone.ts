/** What a sandbox that is cloned from a template needs on the host, as parts of its plan. */
import type { SandboxPlan, SandboxProgram } from "../host/sandbox-plan.ts";

/** A machine that lies in files: a template, or a checkpoint. */
export interface CloneSource {
  readonly ram: string;
  readonly state: string;
  readonly manifest: { readonly ramBytes: number; readonly ramSum: string };
  /** Whether its RAM's file is packed, and not as long as the RAM. */
  readonly packed?: boolean;
}

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
  source: CloneSource,
  helper: string,
  descriptors: CloneDescriptors,
): Pick<SandboxPlan, "open" | "memory"> & { readonly program: SandboxProgram } {
  const { source: from, memory, state } = descriptors;
  const { ramSum, ramBytes } = source.manifest;
  const program: SandboxProgram = {
    name: copier,
    argv: [helper, "template", source.packed === true ? "unpack" : "copy", "--from", String(from), "--to", String(memory), "--sum", ramSum],
    user: "user",
    fds: [from, memory],
  };
  return {
    open: [
      { fd: from, path: source.ram, write: false },
      { fd: state, path: source.state, write: false },
    ],
    memory: [{ fd: memory, bytes: ramBytes }],
    program,
  };
}
