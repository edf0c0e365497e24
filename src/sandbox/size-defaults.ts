/** What the size of a virtual machine follows where its bundle does not say: the configuration, and this host. */
import { availableParallelism, totalmem } from "node:os";
import type { Config } from "../config/config.ts";
import type { SizeDefaults } from "../oci/resources.ts";

export function sizeDefaults({ vm }: Config): SizeDefaults {
  return {
    vcpus: vm.vcpus,
    memoryBytes: vm.memory,
    guestOverheadBytes: vm.memoryOverhead,
    hostOverheadBytes: vm.hostOverhead,
    hostCpus: availableParallelism(),
    hostMemoryBytes: totalmem(),
  };
}
