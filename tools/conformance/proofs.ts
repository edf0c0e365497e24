/** Which test proves what husk does with each field of config.json. A row holds for its field and all below it, unless a longer row does. */

export interface Proof {
  readonly field: string;
  /** Below the checkout's root. */
  readonly file: string;
  /** The test's name, or its beginning where it is made of cases. */
  readonly test: string;
  /** What becomes of a field on which rules of its own decide. */
  readonly words?: string;
}

const spec = "test/e2e/spec.test.ts";
const process = "test/e2e/spec-process.test.ts";
const mounts = "test/e2e/spec-mounts.test.ts";
const linux = "test/e2e/spec-linux.test.ts";
const hooks = "test/e2e/hooks.test.ts";
const resize = "test/e2e/resize.test.ts";
const validate = "src/oci/validate.test.ts";

const basics = "process: user, groups, umask, directory, environment, capabilities, limits, no new privileges";
const paths = "paths: a read-only root, masked and read-only paths, sysctl, devices";
const limits = "resources: every limit that acts in the guest, and those that act on the host";
const refused = "what has no meaning in a virtual machine is refused by name, before anything starts";
const subsumed = "what the virtual machine's boundary subsumes is accepted, and said in the log";
const scheduling = "process: scheduler, priority of input and output, personality, and the processors of an exec";

export const proofs: readonly Proof[] = [
  { field: "ociVersion", file: validate, test: "versions 1.x with what may follow" },
  { field: "process", file: spec, test: basics },
  { field: "process.terminal", file: "test/e2e/terminal.test.ts", test: "a session: a terminal of the right size" },
  { field: "process.consoleSize", file: process, test: "process: a terminal of the size that config.json says" },
  {
    field: "process.user.username",
    file: "src/oci/guest-spec.test.ts",
    test: "processes lose the labels that guard the host",
  },
  { field: "process.rlimits", file: process, test: "process: every limit by its name" },
  { field: "process.scheduler", file: process, test: scheduling },
  { field: "process.scheduler.priority", file: process, test: "process: a real-time scheduler, where the container may have one" },
  { field: "process.scheduler.flags", file: process, test: "process: a real-time scheduler, where the container may have one" },
  { field: "process.ioPriority", file: process, test: scheduling },
  {
    field: "process.execCPUAffinity",
    file: process,
    test: scheduling,
    words: "Honoured in the guest, by the numbers of its processors, of which there are as many as the numbers ask for and the host has",
  },
  { field: "process.apparmorProfile", file: linux, test: subsumed },
  { field: "process.selinuxLabel", file: linux, test: subsumed },
  { field: "process.commandLine", file: linux, test: refused },
  { field: "root.path", file: "test/e2e/storage.test.ts", test: "a folder does what programs ask of a file system" },
  { field: "root.readonly", file: mounts, test: "mounts: a read-only root without the folders to mount on" },
  { field: "hostname", file: process, test: "names: the domain's" },
  { field: "domainname", file: process, test: "names: the domain's" },
  {
    field: "mounts",
    file: spec,
    test: "mounts: tmpfs of a size, folders and files of the host, read-only and not",
    words:
      "Honoured: bind mounts of files and folders (shared by the host, mounted in the guest), and proc, sysfs, tmpfs, devpts, mqueue, cgroup and the like " +
      "(the guest's kernel's own). Refused: unix sockets, FIFOs, block devices and devices of the host as sources, other file systems",
  },
  {
    field: "mounts[].options",
    file: mounts,
    test: "mounts: the options of a bind mount, and the recursive ones",
    words:
      "Honoured in the guest, each that runc knows; a bind mount without flags has those of the host's mount that its source is in, and what is read-only there stays so. Refused: idmap and ridmap; shared and rshared on a bind mount whose source is in a shared mount of the host",
  },
  {
    field: "mounts[].type",
    file: mounts,
    test: "mounts: the kernel's file systems",
    words:
      "Honoured in the guest for bind mounts and the kernel's file systems, on the host for overlay. Refused: other file systems, since what they stand on is the host's",
  },
  {
    field: "mounts[].uidMappings",
    file: "src/oci/mount-plan.test.ts",
    test: "an id-mapped mount",
    words: "Refused: an id-mapped mount is not supported: virtio-fs has no id-mapped mounts",
  },
  {
    field: "mounts[].gidMappings",
    file: "src/oci/mount-plan.test.ts",
    test: "an id-mapped mount",
    words: "Refused: an id-mapped mount is not supported: virtio-fs has no id-mapped mounts",
  },
  { field: "hooks", file: hooks, test: "in their order, with the state on stdin, in the bundle's folder" },
  {
    field: "hooks.createContainer",
    file: hooks,
    test: "createContainer: a static program of the host runs in the container's namespaces",
    words:
      "Honoured in the guest, where a static program is shown. Refused: other programs, whose libraries or interpreter the guest does not have",
  },
  { field: "hooks.startContainer", file: hooks, test: "hooks in the container's own namespaces: createContainer and startContainer" },
  {
    field: "annotations",
    file: spec,
    test: "annotations are passed on",
    words:
      "Honoured: in the state and for hooks; io.husk.vcpus and io.husk.memory size the VM, and io.husk.tenant says whose templates it is cloned from, where the administrator allows it. Refused: other names with io.husk.",
  },
  { field: "linux.uidMappings", file: process, test: "namespaces: user with mappings" },
  { field: "linux.gidMappings", file: process, test: "namespaces: user with mappings" },
  { field: "linux.timeOffsets", file: process, test: "namespaces: time, whose clocks have their offsets" },
  {
    field: "linux.sysctl",
    file: spec,
    test: paths,
    words: "Honoured in the guest. Refused: `kernel.hostname`, for which there is the field hostname",
  },
  {
    field: "linux.cgroupsPath",
    file: "test/kvm/systemd.test.ts",
    test: "a scope holds the sandbox, has its limits, and ends with it",
    words:
      "Honoured on the host: a path below each hierarchy's root; with `--systemd-cgroup`, and through containerd where it has that form and the host runs systemd, `slice:prefix:name`, a scope of " +
      "systemd's, which has the host's limits as properties",
  },
  {
    field: "linux.namespaces",
    file: "src/oci/support.test.ts",
    test: "the host's own namespaces, which a missing entry asks for",
    words:
      "Honoured in the guest, all eight; the network's links are mirrored into the guest. Refused: the host's own network, pid, ipc, uts or mount namespace " +
      "(no entry). Without a cgroup namespace the container has one all the same",
  },
  {
    field: "linux.namespaces[].path",
    file: "test/e2e/neighbours.test.ts",
    test: "network, IPC and UTS namespaces: the same ones, as in a pod; mounts and processes of its own",
    words:
      "Honoured on the host for a network namespace that is not the host's own: a container that names another one's is in its virtual machine, and may name its " +
      "ipc, uts and pid namespaces as well, which are honoured in the guest. Refused for all others",
  },
  {
    field: "linux.devices",
    file: linux,
    test: "devices: each kind that a guest has, and rules for what is not listed",
    words:
      "Honoured in the guest for those that every Linux has (null, zero, full, random, urandom, tty, console, ptmx, kmsg, net/tun, fuse) and FIFOs. Refused: devices " +
      "of the host; in a privileged container's bundle, which lists all that the host has, they are left out, and the log says so",
  },
  { field: "linux.netDevices", file: linux, test: refused },
  { field: "linux.rootfsPropagation", file: mounts, test: "mounts: propagation of the root and of a mount" },
  { field: "linux.maskedPaths", file: spec, test: paths },
  { field: "linux.readonlyPaths", file: spec, test: paths },
  { field: "linux.mountLabel", file: linux, test: subsumed },
  { field: "linux.intelRdt", file: linux, test: refused },
  { field: "linux.memoryPolicy", file: linux, test: refused },
  { field: "linux.personality.domain", file: process, test: scheduling },
  { field: "linux.personality.flags", file: linux, test: refused },
  { field: "linux.seccomp", file: linux, test: "seccomp: arguments, an errno of one's own, and death" },
  {
    field: "linux.seccomp.defaultAction",
    file: "test/e2e/fixtures.test.ts",
    test: "%s runs",
    words: "Honoured in the guest. Refused: SCMP_ACT_NOTIFY, since a seccomp notification cannot leave the virtual machine",
  },
  {
    field: "linux.seccomp.syscalls[].action",
    file: linux,
    test: "seccomp: arguments, an errno of one's own, and death",
    words: "Honoured in the guest. Refused: SCMP_ACT_NOTIFY, since a seccomp notification cannot leave the virtual machine",
  },
  { field: "linux.seccomp.listenerPath", file: "src/oci/support.test.ts", test: "a seccomp listener that hears nothing" },
  { field: "linux.seccomp.listenerMetadata", file: "src/oci/support.test.ts", test: "a seccomp listener that hears nothing" },
  { field: "linux.resources", file: linux, test: limits },
  { field: "linux.resources.devices", file: linux, test: "devices: each kind that a guest has, and rules for what is not listed" },
  { field: "linux.resources.cpu.idle", file: linux, test: "resources: an idle group" },
  { field: "linux.resources.cpu.realtimePeriod", file: linux, test: refused },
  { field: "linux.resources.cpu.realtimeRuntime", file: linux, test: refused },
  { field: "linux.resources.memory.disableOOMKiller", file: linux, test: refused },
  { field: "linux.resources.cpu.quota", file: resize, test: "grows with the limits" },
  { field: "linux.resources.cpu.shares", file: "test/engines/cri.test.ts", test: "a pod grows with its containers and their updates" },
  { field: "linux.resources.cpu.cpus", file: "src/sandbox/limits.test.ts", test: "processors of the host: those of all containers" },
  { field: "linux.resources.cpu.mems", file: "src/sandbox/limits.test.ts", test: "processors of the host: those of all containers" },
  { field: "linux.resources.memory.limit", file: spec, test: "limits: memory, whose excess is death by SIGKILL" },
  { field: "linux.resources.pids", file: spec, test: "limits: processes" },
  { field: "linux.resources.blockIO.leafWeight", file: "src/oci/support.test.ts", test: "weights of leaves" },
  { field: "linux.resources.blockIO.weightDevice[].leafWeight", file: "src/oci/support.test.ts", test: "weights of leaves" },
  { field: "linux.resources.blockIO.weight", file: "src/host/block-io.test.ts", test: "the files of cgroup v2, weights on its scale" },
  {
    field: "linux.resources.blockIO.weightDevice",
    file: "src/host/block-io.test.ts",
    test: "the files of cgroup v2, weights on its scale",
  },
  { field: "linux.resources.network", file: linux, test: refused },
  { field: "linux.resources.rdma", file: linux, test: refused },
  { field: "vm", file: linux, test: "the vm section, where the administrator allows it" },
  { field: "solaris", file: linux, test: refused },
  { field: "windows", file: linux, test: refused },
  { field: "zos", file: linux, test: refused },
  { field: "freebsd", file: linux, test: refused },
];
