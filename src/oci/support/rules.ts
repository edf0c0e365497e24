/**
 * The table of fields. A row covers its field and all below it, unless a longer row does. docs/ and the conformance tests read it too.
 */
import { isSwapFile } from "../guest.ts";
import type { Resources, Seccomp, Spec } from "../types.ts";

export interface FieldRule {
  readonly field: string;
  /**
   * - guest: honoured by the agent.
   * - host: honoured on the host.
   * - both: the guest does its part, the host its own.
   * - boundary: what it protects from cannot get past the virtual machine's boundary anyway; said once in the log.
   * - ignored: without effect, as the specification or runc has it; said once in the log.
   * - refused: named in an error before anything is started, where it is set.
   * - judged: a rule of its own decides, in this folder or in `check`.
   */
  readonly place: "guest" | "host" | "both" | "boundary" | "ignored" | "refused" | "judged";
  /** Why, for the places that need a word; printed behind the field's name. */
  readonly reason?: string;
  /** Finds what is refused, where that is not just a field that is set. */
  readonly check?: (document: Partial<Spec>) => readonly { readonly path: string; readonly reason: string }[];
}

const noRealtime = "cgroup v2, which the guest has, knows no real-time groups";
const noLeaf = "the host's schedulers of block I/O know no weights of leaves";
const noNotify = "a seccomp notification cannot leave the virtual machine";
const noListener = "nothing sends a seccomp notification, since SCMP_ACT_NOTIFY is refused";
const noSwap = "the guest has no swap";
const deprecated = "it is deprecated, and cgroup v2 does not have it";

export const fieldRules: readonly FieldRule[] = [
  { field: "ociVersion", place: "both" },
  { field: "process.terminal", place: "both" },
  { field: "process.consoleSize", place: "both" },
  { field: "process.user", place: "guest" },
  { field: "process.user.username", place: "ignored", reason: "it is Windows' own" },
  { field: "process.args", place: "guest" },
  { field: "process.env", place: "guest" },
  { field: "process.cwd", place: "guest" },
  { field: "process.capabilities", place: "guest" },
  { field: "process.rlimits", place: "guest" },
  { field: "process.noNewPrivileges", place: "guest" },
  { field: "process.apparmorProfile", place: "boundary", reason: "the profile guards the host, which the container does not reach" },
  { field: "process.oomScoreAdj", place: "guest" },
  { field: "process.scheduler", place: "guest" },
  { field: "process.selinuxLabel", place: "boundary", reason: "the label guards the host, which the container does not reach" },
  { field: "process.ioPriority", place: "guest" },
  { field: "process.execCPUAffinity", place: "guest" },
  { field: "process.commandLine", place: "refused", reason: "it is Windows' own" },

  { field: "root.path", place: "host" },
  { field: "root.readonly", place: "guest" },
  { field: "hostname", place: "guest" },
  { field: "domainname", place: "guest" },
  { field: "mounts", place: "judged" },
  { field: "hooks.prestart", place: "host" },
  { field: "hooks.createRuntime", place: "host" },
  { field: "hooks.createContainer", place: "judged" },
  { field: "hooks.startContainer", place: "guest" },
  { field: "hooks.poststart", place: "host" },
  { field: "hooks.poststop", place: "host" },
  { field: "annotations", place: "judged" },

  { field: "linux.uidMappings", place: "guest" },
  { field: "linux.gidMappings", place: "guest" },
  { field: "linux.sysctl", place: "guest" },
  { field: "linux.sysctl.kernel.hostname", place: "refused", check: ({ linux }) => hostnames(linux?.sysctl) },
  { field: "linux.cgroupsPath", place: "host" },
  { field: "linux.namespaces", place: "judged" },
  { field: "linux.devices", place: "judged" },
  { field: "linux.netDevices", place: "refused", reason: "a network device of the host cannot be moved into a virtual machine" },
  { field: "linux.rootfsPropagation", place: "guest" },
  { field: "linux.maskedPaths", place: "guest" },
  { field: "linux.readonlyPaths", place: "guest" },
  { field: "linux.mountLabel", place: "boundary", reason: "the label guards the host, which the container does not reach" },
  { field: "linux.intelRdt", place: "refused", reason: "the host's resctrl groups cannot hold processes of a guest" },
  { field: "linux.memoryPolicy", place: "refused", reason: "it names the host's memory nodes, of which the guest has none" },
  { field: "linux.personality.domain", place: "guest" },
  { field: "linux.personality.flags", place: "refused", reason: "no flags are supported" },
  { field: "linux.timeOffsets", place: "guest" },

  { field: "linux.seccomp", place: "guest" },
  { field: "linux.seccomp.listenerPath", place: "ignored", reason: noListener },
  { field: "linux.seccomp.listenerMetadata", place: "ignored", reason: noListener },
  { field: "linux.seccomp.defaultAction", place: "judged" },
  { field: "linux.seccomp.syscalls[].action", place: "refused", check: ({ linux }) => notifying(linux?.seccomp) },

  { field: "linux.resources.devices", place: "guest" },
  { field: "linux.resources.memory.limit", place: "both" },
  { field: "linux.resources.memory.reservation", place: "guest" },
  { field: "linux.resources.memory.swap", place: "boundary", reason: noSwap },
  { field: "linux.resources.memory.swappiness", place: "boundary", reason: noSwap },
  { field: "linux.resources.memory.kernel", place: "ignored", reason: deprecated },
  { field: "linux.resources.memory.kernelTCP", place: "ignored", reason: deprecated },
  { field: "linux.resources.memory.disableOOMKiller", place: "refused", reason: "cgroup v2, which the guest has, cannot switch it off" },
  { field: "linux.resources.memory.useHierarchy", place: "guest" },
  { field: "linux.resources.memory.checkBeforeUpdate", place: "guest" },
  { field: "linux.resources.cpu.shares", place: "both" },
  { field: "linux.resources.cpu.quota", place: "guest" },
  { field: "linux.resources.cpu.burst", place: "guest" },
  { field: "linux.resources.cpu.period", place: "guest" },
  { field: "linux.resources.cpu.realtimeRuntime", place: "refused", reason: noRealtime },
  { field: "linux.resources.cpu.realtimePeriod", place: "refused", reason: noRealtime },
  { field: "linux.resources.cpu.cpus", place: "host" },
  { field: "linux.resources.cpu.mems", place: "host" },
  { field: "linux.resources.cpu.idle", place: "guest" },
  { field: "linux.resources.pids", place: "guest" },
  { field: "linux.resources.blockIO", place: "host" },
  { field: "linux.resources.blockIO.leafWeight", place: "refused", reason: noLeaf },
  {
    field: "linux.resources.blockIO.weightDevice[].leafWeight",
    place: "refused",
    reason: noLeaf,
    check: ({ linux }) => leaves(linux?.resources),
  },
  { field: "linux.resources.hugepageLimits", place: "guest" },
  {
    field: "linux.resources.network",
    place: "refused",
    reason: "cgroup v2, which the guest has, knows no network classes",
    check: ({ linux }) => networkClasses(linux?.resources),
  },
  { field: "linux.resources.rdma", place: "refused", reason: "the guest has no RDMA devices" },
  { field: "linux.resources.unified", place: "guest" },
  { field: "linux.resources.unified.memory.swap", place: "boundary", check: ({ linux }) => swapFiles(linux?.resources) },

  { field: "vm", place: "judged" },
  { field: "vm.hypervisor.path", place: "host" },
  { field: "vm.hypervisor.parameters", place: "refused", reason: "husk writes QEMU's command line itself" },
  { field: "vm.kernel.path", place: "host" },
  { field: "vm.kernel.parameters", place: "host" },
  { field: "vm.kernel.initrd", place: "refused", reason: "the initramfs is the one that holds husk's agent" },
  { field: "vm.image", place: "refused", reason: "husk boots images of its own" },
  { field: "vm.hwConfig", place: "refused", reason: "processors and memory follow linux.resources" },
  { field: "solaris", place: "refused", reason: "the guest is Linux" },
  { field: "windows", place: "refused", reason: "the guest is Linux" },
  { field: "zos", place: "refused", reason: "the guest is Linux" },
  { field: "freebsd", place: "refused", reason: "the guest is Linux" },
];

/** As with runc: two fields for one thing. */
function hostnames(sysctl: Readonly<Record<string, string>> = {}): { path: string; reason: string }[] {
  return Object.hasOwn(sysctl, "kernel.hostname")
    ? [{ path: 'linux.sysctl["kernel.hostname"]', reason: "it conflicts with the field hostname, which is for that" }]
    : [];
}

function notifying(seccomp: Seccomp | undefined): { path: string; reason: string }[] {
  const paths = [
    ...(seccomp?.defaultAction === "SCMP_ACT_NOTIFY" ? ["linux.seccomp.defaultAction"] : []),
    ...(seccomp?.syscalls ?? []).flatMap(({ action }, index) =>
      action === "SCMP_ACT_NOTIFY" ? [`linux.seccomp.syscalls[${index}].action`] : [],
    ),
  ];
  return paths.map((path) => ({ path, reason: `SCMP_ACT_NOTIFY: ${noNotify}` }));
}

function leaves(resources: Resources | undefined): { path: string; reason: string }[] {
  return (resources?.blockIO?.weightDevice ?? []).flatMap(({ leafWeight = 0 }, index) =>
    leafWeight === 0 ? [] : [{ path: `linux.resources.blockIO.weightDevice[${index}].leafWeight`, reason: noLeaf }],
  );
}

function networkClasses(resources: Resources | undefined): { path: string; reason: string }[] {
  const { classID = 0, priorities = [] } = resources?.network ?? {};
  const reason = "cgroup v2, which the guest has, knows no network classes";
  return [
    ...(classID === 0 ? [] : [{ path: "linux.resources.network.classID", reason }]),
    ...(priorities.length === 0 ? [] : [{ path: "linux.resources.network.priorities", reason }]),
  ];
}

function swapFiles(resources: Resources | undefined): { path: string; reason: string }[] {
  return Object.keys(resources?.unified ?? {})
    .filter(isSwapFile)
    .map((file) => ({ path: `linux.resources.unified[${JSON.stringify(file)}]`, reason: noSwap }));
}
