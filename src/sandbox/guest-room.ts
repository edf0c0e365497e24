/** What a container that joins a sandbox asks of its virtual machine as a whole: that is refused by name. Its limits have the machine grow (`SandboxLimits`). */
import { HuskError } from "../errors.ts";
import { ownAnnotations } from "../oci/annotations.ts";
import { hostLimits } from "../oci/resources.ts";
import type { BlockIo, Spec } from "../oci/types.ts";

/** Throws `unsupported` with everything that is refused. */
export function refuseBeyondMachine(spec: Spec): void {
  const resources = spec.linux?.resources ?? {};
  const { cpus, mems, blockIo } = hostLimits(resources);
  const asked = {
    vm: spec.vm !== undefined,
    ...Object.fromEntries(Object.values(ownAnnotations).map((name) => [`annotations["${name}"]`, spec.annotations?.[name] !== undefined])),
    "linux.resources.cpu.cpus": cpus !== undefined,
    "linux.resources.cpu.mems": mems !== undefined,
    "linux.resources.blockIO": blockIo !== undefined && limits(blockIo),
  };
  const refused = Object.entries(asked).flatMap(([field, isAsked]) => (isAsked ? [field] : []));
  if (refused.length > 0) {
    const reason = "it acts on the virtual machine, which is that of the container whose network namespace is named";
    throw new HuskError("unsupported", `config.json: ${refused.map((field) => `${field}: ${reason}`).join("; ")}`);
  }
}

/** Docker writes a weight of 0, and lists without entries. */
function limits(blockIo: BlockIo): boolean {
  return Object.values(blockIo).some((value) => (Array.isArray(value) ? value.length > 0 : value !== undefined && value !== 0));
}
