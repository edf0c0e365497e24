/** How fast a guest's time stamp counter counts, where the guest might find out wrongly. */
import { HuskError } from "../errors.ts";
import { callHelper } from "../host/helper-call.ts";
import type { Accelerator } from "./machine.ts";

/**
 * What is added to the kernel's command line. Emulated (TCG), a guest reads the host's counter, and measures its rate at boot by an emulated timer: on a busy host
 * that once came out 26 times too slow, and every clone of that template had clocks that ran away. With KVM, the host tells the guest. Throws `host`.
 * https://docs.kernel.org/admin-guide/kernel-parameters.html (tsc_early_khz)
 */
export async function clockParameters(helper: string, accelerator: Accelerator): Promise<string[]> {
  if (accelerator === "kvm") return [];
  const failure = "the rate of the processor's time stamp counter cannot be measured";
  const khz = (await callHelper(helper, { args: ["tsc"], input: "", failure })).trim();
  if (!/^[1-9]\d{5,7}$/.test(khz)) throw new HuskError("internal", `${failure}: the helper says ${JSON.stringify(khz)}`);
  return [`tsc_early_khz=${khz}`];
}
