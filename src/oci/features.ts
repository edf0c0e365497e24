/** What is supported, in the form of the runtime spec's features.md, which Docker, CRI-O and containerd read. */
import { version } from "../version.ts";
import { ownAnnotations } from "./annotations.ts";
import { capabilityNames } from "./capability-names.ts";

/** The newest runtime specification of which every field is honoured, subsumed or refused by name. */
export const specVersion = "1.3.0";

/** https://github.com/opencontainers/runtime-spec/blob/main/features.md */
export function featureReport(): object {
  return {
    ociVersionMin: "1.0.0",
    ociVersionMax: specVersion,
    hooks: ["prestart", "createRuntime", "createContainer", "startContainer", "poststart", "poststop"],
    mountOptions: mountOptions(),
    linux: {
      namespaces: ["cgroup", "ipc", "mount", "network", "pid", "time", "user", "uts"],
      capabilities: capabilityNames,
      // The container's cgroup is in the guest, where it is version 2; the host's may be either.
      cgroup: { v1: true, v2: true, systemd: true, systemdUser: false, rdma: false },
      seccomp: {
        enabled: true,
        actions: ["ALLOW", "ERRNO", "KILL", "KILL_PROCESS", "KILL_THREAD", "LOG", "TRACE", "TRAP"].map((name) => `SCMP_ACT_${name}`),
        operators: ["EQ", "GE", "GT", "LE", "LT", "MASKED_EQ", "NE"].map((name) => `SCMP_CMP_${name}`),
        archs: ["SCMP_ARCH_X32", "SCMP_ARCH_X86", "SCMP_ARCH_X86_64"],
        knownFlags: ["TSYNC", "LOG", "SPEC_ALLOW", "WAIT_KILLABLE_RECV"].map((name) => `SECCOMP_FILTER_FLAG_${name}`),
        supportedFlags: ["TSYNC", "LOG", "SPEC_ALLOW", "WAIT_KILLABLE_RECV"].map((name) => `SECCOMP_FILTER_FLAG_${name}`),
      },
      apparmor: { enabled: false },
      selinux: { enabled: false },
      intelRdt: { enabled: false },
      mountExtensions: { idmap: { enabled: false } },
      netDevices: { enabled: false },
    },
    annotations: { "io.husk.version": version },
    potentiallyUnsafeConfigAnnotations: Object.values(ownAnnotations),
  };
}

/** Those that the agent knows by name; file systems' own pass through it. */
function mountOptions(): string[] {
  const attributes = ["atime", "dev", "diratime", "exec", "noatime", "nodev", "nodiratime", "noexec", "norelatime", "nostrictatime"].concat(
    ["nosuid", "nosymfollow", "relatime", "ro", "rw", "strictatime", "suid", "symfollow"],
    ["private", "slave", "unbindable"],
  );
  const others = [
    "async",
    "bind",
    "defaults",
    "dirsync",
    "iversion",
    "lazytime",
    "loud",
    "mand",
    "noiversion",
    "nolazytime",
    "nomand",
  ].concat(["rbind", "remount", "silent", "sync", "tmpcopyup"]);
  return [...attributes, ...attributes.map((name) => `r${name}`), ...others].toSorted();
}
