/** A change of a container's limits while it lives: in the guest, where they act, and in the host's cgroup of its sandbox. */
import { HuskError } from "../errors.ts";
import type { SandboxCgroups } from "../host/sandbox-cgroups.ts";
import { hostLimits } from "../oci/resources.ts";
import type { Resources } from "../oci/types.ts";
import type { Container } from "./container.ts";

export interface LimitChange {
  /** The fields to change alone; judged already (`judgeUpdate`). */
  readonly resources: Resources;
  /** How large a virtual machine the new limits ask for; absent: whatever it has. */
  readonly vm: { readonly vcpus?: number; readonly memoryBytes?: number };
}

/** What the change meets. */
export interface LimitedSandbox {
  readonly vcpus: number;
  readonly memoryBytes: number;
  readonly cgroups: Pick<SandboxCgroups, "limit">;
}

/**
 * Applies a change. Throws `unsupported` where the virtual machine is too small for it, before anything is changed; `wrong-state`; the guest's errors; and
 * `host` where the host's kernel, or systemd, refuses its part.
 */
export async function changeLimits(container: Container, sandbox: LimitedSandbox, { resources, vm }: LimitChange): Promise<void> {
  demandRoom(sandbox, vm, "create the container anew with the higher limit");
  await container.update(resources);
  await sandbox.cgroups.limit(hostLimits(resources));
}

/** Throws `unsupported`, with that hint, where the virtual machine is too small for what is asked of it. */
export function demandRoom(
  sandbox: Pick<LimitedSandbox, "vcpus" | "memoryBytes">,
  { vcpus = 0, memoryBytes = 0 }: LimitChange["vm"],
  hint: string,
): void {
  const tooSmall = (field: string, needed: string, has: string): HuskError => {
    const message = `linux.resources.${field}: it needs a virtual machine with ${needed}, and this one was made with ${has}`;
    return new HuskError("unsupported", message, { hint });
  };
  if (memoryBytes > sandbox.memoryBytes) {
    throw tooSmall("memory.limit", `${toMib(memoryBytes)} MiB of memory`, `${toMib(sandbox.memoryBytes)} MiB`);
  }
  if (vcpus > sandbox.vcpus) throw tooSmall("cpu.quota", `${vcpus} processors`, String(sandbox.vcpus));
}

function toMib(bytes: number): number {
  return Math.ceil(bytes / 1024 ** 2);
}
