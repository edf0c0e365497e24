/** Capabilities that the guest's kernel does not know: they are left out, as with runc, which says so in the same words. */
import type { Process } from "../types.ts";
import type { Finding } from "./finding.ts";

/** All of capabilities(7), to Linux 6.1. */
const known = new Set(
  `AUDIT_CONTROL AUDIT_READ AUDIT_WRITE BLOCK_SUSPEND BPF CHECKPOINT_RESTORE CHOWN DAC_OVERRIDE DAC_READ_SEARCH FOWNER FSETID IPC_LOCK IPC_OWNER KILL LEASE
   LINUX_IMMUTABLE MAC_ADMIN MAC_OVERRIDE MKNOD NET_ADMIN NET_BIND_SERVICE NET_BROADCAST NET_RAW PERFMON SETFCAP SETGID SETPCAP SETUID SYSLOG SYS_ADMIN
   SYS_BOOT SYS_CHROOT SYS_MODULE SYS_NICE SYS_PACCT SYS_PTRACE SYS_RAWIO SYS_RESOURCE SYS_TIME SYS_TTY_CONFIG WAKE_ALARM`
    .split(/\s+/)
    .map((name) => `CAP_${name}`),
);

export function judgeCapabilities({ capabilities = {} }: Process): Finding[] {
  const unknown = new Set(
    Object.values(capabilities)
      .flat()
      .filter((name) => !known.has(name)),
  );
  if (unknown.size === 0) return [];
  const reason = `ignoring unknown or unavailable capabilities: [${[...unknown].join(" ")}]`;
  return [{ verdict: "noted", path: "process.capabilities", reason }];
}
