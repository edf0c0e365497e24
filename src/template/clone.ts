/**
 * What a sandbox that is cloned from a template needs on the host, as parts of its plan. A clone that shares folders with the host lives in a copy of the
 * template's RAM, since their daemon maps it as well; all others have one memory in common, of which each maps privately.
 */
import { join } from "node:path";
import type { SandboxPlan, SandboxProgram } from "../host/sandbox-plan.ts";
import type { Template } from "./store.ts";
import type { Zygote } from "./zygote.ts";

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
  /** The clone's RAM. */
  readonly memory: number;
  readonly state: number;
}

/** The name of the program that copies the RAM. It ends with 0 once the copy is made and found whole. */
export const copier = "memory-copy";

/** The file beside a template's others that says which process has its memory (guest-agent/helper/src/sandbox/template_memory.rs). */
const recordName = "holder";

/** For a clone that maps the template's memory privately; it takes it from other clones, and they from it. */
export function privateParts(
  { key, folder, ram, state, manifest }: Template,
  descriptors: Pick<CloneDescriptors, "memory" | "state">,
): Pick<SandboxPlan, "open" | "memory"> {
  const { ramBytes, ramSum, stateSha256 } = manifest;
  const template = {
    // A template that was made anew has the key of the one before.
    name: `husk-${key}-${ramSum}-${stateSha256.slice(0, 16)}`,
    ram,
    sum: ramSum,
    record: join(folder, recordName),
  };
  return {
    open: [{ fd: descriptors.state, path: state, write: false }],
    memory: [{ fd: descriptors.memory, bytes: ramBytes, template }],
  };
}

/** For a copy of a zygote that shares folders: it lives in memory of its own, which is filled while it is made. */
export function zygoteParts(
  { memory: ram, sum }: Zygote,
  ramBytes: number,
  helper: string,
  descriptors: Pick<CloneDescriptors, "source" | "memory">,
): Pick<SandboxPlan, "open" | "memory"> & { readonly program: SandboxProgram } {
  const { source, memory } = descriptors;
  return {
    open: [{ fd: source, path: ram, write: false }],
    memory: [{ fd: memory, bytes: ramBytes }],
    program: copying([helper, "template", "copy"], sum, { source, memory }),
  };
}

/** Likewise, where that has been filled already (`SandboxProcess.fill`). */
export function filledParts({ sum }: Zygote, ramBytes: number, memory: number): Pick<SandboxPlan, "open" | "memory"> {
  return { open: [], memory: [{ fd: memory, bytes: ramBytes, filled: sum }] };
}

/** For a clone that lives in a copy, which is made while QEMU starts: that takes longer. */
export function copyParts(
  source: CloneSource,
  helper: string,
  descriptors: CloneDescriptors,
): Pick<SandboxPlan, "open" | "memory"> & { readonly program: SandboxProgram } {
  const { source: from, memory, state } = descriptors;
  const { ramSum, ramBytes } = source.manifest;
  return {
    open: [
      { fd: from, path: source.ram, write: false },
      { fd: state, path: source.state, write: false },
    ],
    memory: [{ fd: memory, bytes: ramBytes }],
    program: copying([helper, "template", source.packed === true ? "unpack" : "copy"], ramSum, { source: from, memory }),
  };
}

function copying(words: readonly string[], sum: string, { source, memory }: Pick<CloneDescriptors, "source" | "memory">): SandboxProgram {
  const argv = [...words, "--from", String(source), "--to", String(memory), "--sum", sum];
  return { name: copier, argv, user: "user", fds: [source, memory] };
}
