/** What a hypervisor's processes are on the host, and what of its files they see. */
import { existsSync } from "node:fs";
import { dirname } from "node:path";

/** Users that hypervisors run as: one a sandbox, far above any that a distribution gives out. */
const firstUser = 0x70000000;

/** The user that QEMU of the sandbox with this helper PID runs as. PIDs of live processes differ, so the users do. */
export function hypervisorUser(helperPid: number): number {
  return firstUser + helperPid;
}

/** What QEMU and the programs beside it read of the host: themselves, libraries and firmware. QEMU's whole folder is shown, the others' files alone. */
export function hypervisorTree(qemu: string, others: readonly string[]): string[] {
  const system = ["/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/etc/ld.so.cache", "/etc/alternatives"].filter((path) =>
    existsSync(path),
  );
  return [...system, ...[dirname(qemu), ...others].filter((path) => !path.startsWith("/usr/"))];
}
