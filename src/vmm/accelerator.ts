/**
 * KVM or TCG, by what really works: an open /dev/kvm proves nothing (it opens, and creates machines that never boot, where the processor
 * has no virtualization), so the processor's flags are asked as well.
 */
import { HuskError } from "../errors.ts";
import type { Accelerator } from "./machine.ts";

/** What was found on the host. */
export interface AcceleratorProbe {
  /** undefined: /dev/kvm opens for reading and writing; else why not. */
  readonly kvmProblem: string | undefined;
  /** Whether /proc/cpuinfo has vmx or svm. */
  readonly virtualization: boolean;
}

export interface AcceleratorChoice {
  readonly accelerator: Accelerator;
  /** One line that says what was chosen, and why. */
  readonly reason: string;
}

/** Said wherever a sandbox runs without KVM: QEMU's own security policy (https://www.qemu.org/docs/master/system/security.html). */
export const tcgWarning = "QEMU promises isolation between guest and host under KVM, not under TCG (software emulation)";

/** Chooses. `requested` is the configuration's or the flag's word. Throws `host` where KVM is demanded and absent. */
export function chooseAccelerator(requested: "auto" | Accelerator, requireKvm: boolean, probe: AcceleratorProbe): AcceleratorChoice {
  const problem = kvmProblem(probe);
  if (requireKvm && (requested === "tcg" || problem !== undefined)) {
    const why = requested === "tcg" ? "accel is tcg" : problem;
    throw new HuskError("host", `require_kvm is set and KVM cannot be used: ${why}`, { hint: "see `husk doctor`" });
  }
  if (requested === "kvm" && probe.kvmProblem !== undefined) {
    throw new HuskError("host", `accel is kvm, which cannot be used: ${probe.kvmProblem}`, { hint: "see `husk doctor`" });
  }
  if (requested === "kvm") return { accelerator: "kvm", reason: "KVM, as asked" };
  if (requested === "tcg") return { accelerator: "tcg", reason: `TCG, as asked; ${tcgWarning}` };
  return problem === undefined
    ? { accelerator: "kvm", reason: "KVM: /dev/kvm opens and the processor has virtualization" }
    : { accelerator: "tcg", reason: `TCG, since ${problem}; ${tcgWarning}` };
}

function kvmProblem({ kvmProblem, virtualization }: AcceleratorProbe): string | undefined {
  return kvmProblem ?? (virtualization ? undefined : "the processor shows neither vmx nor svm");
}

/** Looks at the host. `readFile` and `open` are the file system's, so that a test can be another host. */
export function probeAccelerator(readFile: (path: string) => string, open: (path: string) => void): AcceleratorProbe {
  let kvmProblem: string | undefined;
  try {
    open("/dev/kvm");
  } catch (error) {
    const code = (error as NodeJS.ErrnoException).code;
    kvmProblem = code === "ENOENT" ? "there is no /dev/kvm" : `/dev/kvm cannot be opened (${code ?? String(error)})`;
  }
  return { kvmProblem, virtualization: /^flags\s*:.*\b(vmx|svm)\b/m.test(readFile("/proc/cpuinfo")) };
}
