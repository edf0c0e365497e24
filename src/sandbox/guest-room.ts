/** What a container that joins a sandbox asks of its virtual machine, which is as it was made: whatever that cannot give is refused by name. */
import { HuskError } from "../errors.ts";
import { hostLimits, type SizeDefaults, wantedSize } from "../oci/resources.ts";
import type { BlockIo, Spec } from "../oci/types.ts";
import { demandRoom } from "./limits.ts";

/** Throws `unsupported` with everything that is refused, or with what the machine is too small for. */
export function refuseBeyondMachine(
  spec: Spec,
  size: { readonly vcpus: number; readonly memoryBytes: number },
  defaults: SizeDefaults,
): void {
  const resources = spec.linux?.resources ?? {};
  const { cpus, mems, blockIo } = hostLimits(resources);
  const asked = {
    vm: spec.vm !== undefined,
    "linux.resources.cpu.cpus": cpus !== undefined,
    "linux.resources.cpu.mems": mems !== undefined,
    "linux.resources.blockIO": blockIo !== undefined && limits(blockIo),
  };
  const refused = Object.entries(asked).flatMap(([field, isAsked]) => (isAsked ? [field] : []));
  if (refused.length > 0) {
    const reason = "it acts on the virtual machine, which is that of the container whose network namespace is named";
    throw new HuskError("unsupported", `config.json: ${refused.map((field) => `${field}: ${reason}`).join("; ")}`);
  }
  demandRoom(size, wantedSize(resources, defaults, spec.annotations), "give the first container in it the higher limit");
}

/** Docker writes a weight of 0, and lists without entries. */
function limits(blockIo: BlockIo): boolean {
  return Object.values(blockIo).some((value) => (Array.isArray(value) ? value.length > 0 : value !== undefined && value !== 0));
}
