/** The checks of `husk doctor`: what each needs to know of the host, what it makes of it, and how to mend what it finds. */
import { dirname, join } from "node:path";
import type { Config } from "../config/config.ts";
import { explain } from "../errors.ts";
import { findHierarchies } from "../host/cgroups.ts";
import { helperPath } from "../host/installation.ts";
import { type AcceleratorProbe, chooseAccelerator, probeAccelerator, tcgWarning } from "../vmm/accelerator.ts";
import { findGuestImage, findQemu, findVirtiofsd, guestImageFolders } from "../vmm/host-programs.ts";
import type { HostView } from "./host-view.ts";

/** fail: husk cannot run containers here. warn: it can, but not as well as it might. */
export type CheckStatus = "ok" | "warn" | "fail";

export interface Check {
  readonly name: string;
  readonly status: CheckStatus;
  /** What was found. */
  readonly found: string;
  /** What to do about it, unless it is fine. */
  readonly mend?: string;
}

const setup = "run `npm run setup` in the checkout";
const mebibyte = 1024 * 1024;

/** The oldest QEMU that husk is tested with. */
const oldestQemu = [7, 2] as const;

/** The oldest Rust that compiles the guest's agent (guest-agent/Cargo.toml). */
const oldestRust = [1, 85] as const;

export function checkSystem({ architecture, kernelRelease, readText }: HostView): Check {
  const name = "system";
  const distribution = /^PRETTY_NAME="?([^"\n]*)/m.exec(attempt(() => readText("/etc/os-release")) ?? "")?.[1] ?? "unknown distribution";
  const found = `${distribution}, Linux ${kernelRelease}, ${architecture}`;
  if (architecture !== "x64") return { name, status: "fail", found, mend: "husk runs on x86-64 only" };
  return { name, status: "ok", found };
}

/** CAP_SYS_ADMIN is what making namespaces and mounts takes (capabilities(7)). */
export function checkRights({ euid, readText }: HostView): Check {
  const name = "rights";
  const effective = /^CapEff:\s*([0-9a-f]+)$/m.exec(attempt(() => readText("/proc/self/status")) ?? "")?.[1];
  const isAdmin = effective !== undefined && (BigInt(`0x${effective}`) & (1n << 21n)) !== 0n;
  if (euid === 0 && isAdmin) return { name, status: "ok", found: "root, with CAP_SYS_ADMIN" };
  if (euid !== 0) return { name, status: "fail", found: `user ${euid}`, mend: "run husk as root" };
  return { name, status: "fail", found: "root without CAP_SYS_ADMIN", mend: "leave the container you are in, or run that privileged" };
}

export function checkNamespaces({ readText }: HostView): Check {
  const name = "namespaces";
  const kinds = ["pid", "mnt", "net", "ipc", "uts"];
  const missing = kinds.filter((kind) => Number(attempt(() => readText(`/proc/sys/user/max_${kind}_namespaces`))?.trim() ?? "0") === 0);
  if (missing.length === 0) return { name, status: "ok", found: kinds.join(", ") };
  const mend = `sysctl user.max_${missing[0] ?? "pid"}_namespaces=10000, or a kernel that has them`;
  return { name, status: "fail", found: `none of the kind ${missing.join(", ")} can be made`, mend };
}

export function probeHost({ readText, open }: HostView): AcceleratorProbe {
  return probeAccelerator(readText, open);
}

export function checkKvm({ kvmProblem, virtualization }: AcceleratorProbe): Check {
  const name = "KVM";
  if (kvmProblem === undefined && virtualization) return { name, status: "ok", found: "/dev/kvm opens, and the processor has vmx or svm" };
  const found = [kvmProblem ?? "/dev/kvm opens", ...(virtualization ? [] : ["the processor shows neither vmx nor svm"])].join(", but ");
  const mend = virtualization
    ? "modprobe kvm_intel or kvm_amd"
    : "switch virtualization on in the firmware, or nested virtualization in the host above";
  return { name, status: "warn", found: kvmProblem !== undefined && !virtualization ? found.replace(", but ", ", and ") : found, mend };
}

export function checkAccelerator(probe: AcceleratorProbe, { vm }: Config): Check {
  const name = "accelerator";
  try {
    const { accelerator, reason } = chooseAccelerator(vm.accel, vm.requireKvm, probe);
    if (accelerator === "kvm") return { name, status: "ok", found: reason };
    return { name, status: "warn", found: reason, mend: "containers run, more slowly; set vm.require_kvm where they must not run so" };
  } catch (error) {
    return { name, status: "fail", found: explain(error), mend: "change vm.accel or vm.require_kvm, see `husk config`" };
  }
}

export async function checkQemu(host: HostView, { vm }: Config): Promise<Check> {
  return await checkProgram(host, "QEMU", () => findQemu(vm.qemu, host.env), oldestQemu, "apt-get install qemu-system-x86");
}

export async function checkVirtiofsd(host: HostView, { vm }: Config): Promise<Check> {
  return await checkProgram(
    host,
    "virtiofsd",
    () => findVirtiofsd(vm.virtiofsd, dirname(helperPath()), host.env),
    undefined,
    "npm run setup, or apt-get install virtiofsd",
  );
}

export function checkHelper({ isExecutable }: HostView, helper: string): Check {
  const name = "helper";
  return isExecutable(helper)
    ? { name, status: "ok", found: helper }
    : { name, status: "fail", found: `no program at ${helper}`, mend: setup };
}

/** Which guests are built, and which one is taken. */
export function checkGuestImages({ readText, env }: HostView, { vm }: Config, installation: string): Check {
  const name = "guest image";
  const folders = guestImageFolders(installation, env);
  const built = ["own", "debian"].flatMap((flavour) => {
    const image = attempt(() => findGuestImage(flavour, folders));
    const about = image === undefined ? undefined : attempt(() => readText(join(image.kernel, "..", "about.json")));
    const release = /"kernelRelease":\s*"([^"]*)"/.exec(about ?? "")?.[1] ?? "of unknown version";
    return image === undefined ? [] : [`${flavour} (Linux ${release})`];
  });
  try {
    const taken = findGuestImage(vm.kernel, folders);
    const found = `${taken.flavour}; built: ${built.length === 0 ? "neither own nor debian" : built.join(", ")}`;
    return { name, status: "ok", found };
  } catch (error) {
    return { name, status: "fail", found: explain(error), mend: setup };
  }
}

/** A device that makes things better where it is there. */
export function checkDevice({ open }: HostView, path: string, without: string, module: string): Check {
  const name = path.slice("/dev/".length);
  try {
    open(path);
    return { name, status: "ok", found: `${path} opens` };
  } catch (error) {
    const code = error instanceof Error && "code" in error ? String(error.code) : "unknown error";
    const found = code === "ENOENT" ? `there is no ${path}` : `${path} cannot be opened (${code})`;
    return { name, status: "warn", found: `${found}: ${without}`, mend: `modprobe ${module}` };
  }
}

export function checkCgroups({ readText }: HostView): Check {
  const name = "cgroups";
  const hierarchies = findHierarchies(readText("/proc/self/mountinfo"), (path) => attempt(() => readText(path)) ?? "");
  const versions = [1, 2].filter((version) => hierarchies.some((hierarchy) => hierarchy.version === version));
  if (versions.length === 0) {
    return {
      name,
      status: "warn",
      found: "none is mounted: a sandbox's memory on the host is not limited",
      mend: "mount -t cgroup2 cgroup2 /sys/fs/cgroup",
    };
  }
  const layout = versions.length === 2 ? "versions 1 and 2 side by side" : `version ${versions[0]}`;
  const controllers = [...new Set(hierarchies.flatMap((hierarchy) => hierarchy.controllers))];
  if (!controllers.includes("memory")) {
    return {
      name,
      status: "warn",
      found: `${layout}, without the memory controller: a sandbox's memory is not limited`,
      mend: "boot with cgroup_enable=memory",
    };
  }
  return { name, status: "ok", found: `${layout}: ${controllers.join(", ")}` };
}

/** Whether one container of the default size would fit. */
export function checkMemory({ readText, totalMemoryBytes }: HostView, { vm }: Config): Check {
  const name = "memory";
  const available = Number(/^MemAvailable:\s*(\d+) kB$/m.exec(attempt(() => readText("/proc/meminfo")) ?? "")?.[1] ?? "0") * 1024;
  const needed = vm.memory + vm.memoryOverhead;
  const found = `${mebibytes(available)} of ${mebibytes(totalMemoryBytes)} available; a container of the default size may take ${mebibytes(needed)}`;
  return available >= needed ? { name, status: "ok", found } : { name, status: "warn", found, mend: "free some, or lower vm.memory" };
}

/** Logs and records are small, but without room for them nothing starts. */
export function checkDisk({ freeBytes }: HostView, root: string): Check {
  const name = "disk";
  const free = freeBytes(root);
  const found = `${mebibytes(free)} free for ${root}`;
  return free >= 16 * mebibyte
    ? { name, status: "ok", found }
    : { name, status: "warn", found, mend: "free some, or choose another --root" };
}

export function checkNode({ nodeVersion }: HostView): Check {
  const isOld = Number(nodeVersion.split(".", 1)[0]) < 22;
  return isOld
    ? { name: "node", status: "warn", found: nodeVersion, mend: `${setup}: it brings the version that husk is tested with` }
    : { name: "node", status: "ok", found: nodeVersion };
}

export async function checkRust({ firstLine }: HostView): Promise<Check> {
  const name = "rust";
  const line = await firstLine("rustc", ["--version"]);
  const mend = "https://rustup.rs has the newest; it is needed to build husk, not to run it";
  if (line === undefined) return { name, status: "warn", found: "no rustc", mend };
  return isOlder(line, oldestRust)
    ? { name, status: "warn", found: `${line}, older than ${oldestRust.join(".")}`, mend }
    : { name, status: "ok", found: line };
}

/** What has to be said of a host that runs without KVM, whoever asks. */
export function isolationNote(checks: readonly Check[]): string | undefined {
  return checks.some(({ name, status }) => name === "accelerator" && status === "warn")
    ? `Without KVM: ${tcgWarning}. Around QEMU there are still namespaces, a user of its own and seccomp, but do not rely on the virtual machine alone to hold code that you do not trust.`
    : undefined;
}

async function checkProgram(
  { firstLine }: HostView,
  name: string,
  find: () => string,
  oldest: readonly [number, number] | undefined,
  install: string,
): Promise<Check> {
  let path: string;
  try {
    path = find();
  } catch (error) {
    return { name, status: "fail", found: explain(error), mend: install };
  }
  const line = await firstLine(path, ["--version"]);
  if (line === undefined) return { name, status: "fail", found: `${path} cannot be run`, mend: install };
  if (oldest !== undefined && isOlder(line, oldest)) {
    return { name, status: "fail", found: `${path}: ${line}, older than ${oldest.join(".")}`, mend: install };
  }
  return { name, status: "ok", found: `${path}: ${line}` };
}

/** Whether the first version number in `text` is below the one given. */
function isOlder(text: string, [major, minor]: readonly [number, number]): boolean {
  const [, foundMajor = "0", foundMinor = "0"] = /(\d+)\.(\d+)/.exec(text) ?? [];
  return Number(foundMajor) < major || (Number(foundMajor) === major && Number(foundMinor) < minor);
}

function mebibytes(bytes: number): string {
  return bytes >= 10 * 1024 * mebibyte ? `${Math.floor(bytes / 1024 / mebibyte)} GiB` : `${Math.floor(bytes / mebibyte)} MiB`;
}

function attempt<T>(action: () => T): T | undefined {
  try {
    return action();
  } catch {
    return undefined;
  }
}
