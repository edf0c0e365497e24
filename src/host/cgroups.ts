/**
 * The sandbox's cgroups on the host: one folder below each hierarchy, cgroup v1, v2 or both at once ("hybrid"). QEMU, virtiofsd and the stand-ins
 * live there; the container's own limits act in the guest, so the host's hold what the whole sandbox may take.
 * https://www.kernel.org/doc/html/latest/admin-guide/cgroup-v2.html
 */
import { existsSync, mkdirSync, readdirSync, readFileSync, statSync, writeFileSync } from "node:fs";
import { dirname, join, relative } from "node:path";
import { HuskError } from "../errors.ts";
import { type BlockIoLimits, blockIoSettings } from "./block-io.ts";
import { hasCode } from "./system-error.ts";

/** One mounted hierarchy. */
export interface CgroupHierarchy {
  readonly mountPoint: string;
  readonly version: 1 | 2;
  /** v1: the controllers of this hierarchy; v2: those that the root offers. */
  readonly controllers: readonly string[];
}

/** The v1 controllers in which a sandbox gets a folder. */
const usedControllers = new Set(["cpu", "cpuacct", "cpuset", "memory", "devices", "freezer", "blkio", "pids", "name=systemd"]);

/** The hierarchies mounted on this host. `mountinfo`: the text of /proc/self/mountinfo (proc(5)). */
export function findHierarchies(mountinfo: string, readText = (path: string) => readFileSync(path, "utf8")): CgroupHierarchy[] {
  return mountinfo.split("\n").flatMap((line): CgroupHierarchy[] => {
    const [left, right] = line.split(" - ");
    const mountPoint = left?.split(" ")[4];
    const [type, , superOptions] = right?.split(" ") ?? [];
    if (mountPoint === undefined) return [];
    if (type === "cgroup2") {
      return [{ mountPoint, version: 2, controllers: readText(join(mountPoint, "cgroup.controllers")).split(/\s+/).filter(Boolean) }];
    }
    const controllers = (superOptions ?? "").split(",").filter((option) => usedControllers.has(option));
    return type === "cgroup" && controllers.length > 0 ? [{ mountPoint, version: 1, controllers }] : [];
  });
}

/**
 * Makes the folder `path` (absolute, seen from each hierarchy's root) in every hierarchy. `beforeMaking` is told each folder before it is made,
 * so that a ledger knows it. Answers the folders, to be joined by writing to their cgroup.procs. Throws `host`.
 */
export function makeCgroups(hierarchies: readonly CgroupHierarchy[], path: string, beforeMaking: (folder: string) => void): string[] {
  return hierarchies.map((hierarchy) => {
    const folder = join(hierarchy.mountPoint, path);
    if (relative(hierarchy.mountPoint, folder).startsWith("..")) {
      throw new HuskError("invalid-argument", `linux.cgroupsPath: ${path} leaves the cgroup hierarchy`);
    }
    makeFolder(hierarchy, folder, beforeMaking, true);
    return folder;
  });
}

/**
 * Refuses cgroups in which there are processes already, since limits and the removal would hit those too, and frozen ones, in which nothing would ever run. The
 * words are runc's. Throws `wrong-state`, and `invalid-argument` where the path is that of one of the kernel's own files, such as "tasks".
 */
export function demandFree(hierarchies: readonly CgroupHierarchy[], path: string): void {
  for (const { mountPoint, version, controllers } of hierarchies) {
    const folder = join(mountPoint, path);
    const found = statSync(folder, { throwIfNoEntry: false });
    if (found === undefined) continue;
    if (!found.isDirectory()) {
      throw new HuskError("invalid-argument", `${folder} is a file of the cgroup hierarchy: name another path in linux.cgroupsPath`);
    }
    const processes = processesBelow(folder);
    if (processes > 0) throw new HuskError("wrong-state", `container's cgroup is not empty: ${processes} process(es) found in ${folder}`);
    const state = version === 2 ? join(folder, "cgroup.freeze") : controllers.includes("freezer") ? join(folder, "freezer.state") : "";
    if (state !== "" && existsSync(state) && ["1", "FROZEN", "FREEZING"].includes(readFileSync(state, "utf8").trim())) {
      throw new HuskError("wrong-state", `container's cgroup unexpectedly frozen: ${folder}`);
    }
  }
}

function processesBelow(folder: string): number {
  const own = readFileSync(join(folder, "cgroup.procs"), "utf8").split("\n").filter(Boolean).length;
  const children = readdirSync(folder, { withFileTypes: true }).filter((entry) => entry.isDirectory());
  return children.reduce((sum, { name }) => sum + processesBelow(join(folder, name)), own);
}

/** What everything of a sandbox may take of the host. What is absent stays as it is. */
export interface CgroupLimits {
  /** The guest's RAM and what QEMU needs beside it. */
  readonly memoryBytes?: number;
  /** As cgroup v1 counts them, 2 to 262144. */
  readonly cpuShares?: number;
  /** Lists such as "0-3,7"; "": all that the parent has. */
  readonly cpus?: string;
  readonly mems?: string;
  readonly blockIo?: BlockIoLimits;
}

/** Sets the limits, each in the hierarchy that has its controller. Throws `host` where the kernel refuses one. */
export function limitCgroups(hierarchies: readonly CgroupHierarchy[], path: string, limits: CgroupLimits): void {
  for (const { mountPoint, version, controllers } of hierarchies) {
    const set = (controller: string, file: string, value: string | undefined): void => {
      if (value !== undefined && controllers.includes(controller)) write(join(mountPoint, path, file), value);
    };
    const { memoryBytes, cpuShares, cpus, mems, blockIo } = limits;
    const list = (file: string, value: string | undefined): string | undefined => {
      if (value !== "") return value;
      return version === 2 ? "\n" : readFileSync(join(mountPoint, dirname(path), file), "utf8");
    };
    if (controllers.includes("cpuset")) {
      set("cpuset", "cpuset.cpus", list("cpuset.cpus", cpus));
      set("cpuset", "cpuset.mems", list("cpuset.mems", mems));
    }
    if (version === 2) {
      set("memory", "memory.max", memoryBytes?.toString());
      set("cpu", "cpu.weight", cpuShares === undefined ? undefined : String(weightOf(cpuShares)));
    } else {
      set("memory", "memory.limit_in_bytes", memoryBytes?.toString());
      set("cpu", "cpu.shares", cpuShares?.toString());
    }
    if (blockIo !== undefined && controllers.includes(version === 2 ? "io" : "blkio")) {
      for (const { file, value } of blockIoSettings(version, join(mountPoint, path), blockIo)) write(join(mountPoint, path, file), value);
    }
  }
}

/** cgroup v1's shares on cgroup v2's scale: 2 to 262144 becomes 1 to 10000 (as runc converts them). */
export function weightOf(shares: number): number {
  return 1 + Math.floor(((shares - 2) * 9999) / 262142);
}

function makeFolder(hierarchy: CgroupHierarchy, folder: string, beforeMaking: (folder: string) => void, isLast: boolean): void {
  if (existsSync(folder)) return;
  const parent = dirname(folder);
  makeFolder(hierarchy, parent, beforeMaking, false);
  if (hierarchy.version === 2) enableControllers(parent, ["memory", "pids", "cpu", "cpuset", "io"]);
  beforeMaking(folder);
  try {
    mkdirSync(folder);
  } catch (cause) {
    // One further up is of several containers, which may begin at the same time; whoever was first removes it as the others do: once it is empty.
    if (isLast || !hasCode(cause, "EEXIST")) throw new HuskError("host", `cannot make the cgroup ${folder}`, { cause });
  }
  // A v1 cpuset takes no process before it has processors and memory nodes.
  if (hierarchy.version === 1 && hierarchy.controllers.includes("cpuset")) {
    for (const file of ["cpuset.cpus", "cpuset.mems"]) write(join(folder, file), readFileSync(join(parent, file), "utf8"));
  }
}

/** Offers the parent's controllers to its children, as far as it has them. */
function enableControllers(parent: string, wanted: readonly string[]): void {
  const offered = readFileSync(join(parent, "cgroup.controllers"), "utf8").split(/\s+/);
  const enabled = readFileSync(join(parent, "cgroup.subtree_control"), "utf8").split(/\s+/);
  const missing = wanted.filter((name) => offered.includes(name) && !enabled.includes(name));
  if (missing.length > 0) write(join(parent, "cgroup.subtree_control"), missing.map((name) => `+${name}`).join(" "));
}

function write(file: string, text: string): void {
  try {
    writeFileSync(file, text);
  } catch (cause) {
    throw new HuskError("host", `cannot write ${text.trim()} to ${file}`, { cause });
  }
}

/** Moves processes to `folders`, those of all hierarchies at once: each waits for the kernel. One that has ended is no error. Throws `host`. */
export async function joinCgroups(folders: readonly string[], pids: readonly number[]): Promise<void> {
  const { writeFile } = await import("node:fs/promises");
  await Promise.all(
    folders.map(async (folder) => {
      for (const pid of pids)
        await writeFile(join(folder, "cgroup.procs"), String(pid)).catch((cause: unknown) => refused(pid, folder, cause));
    }),
  );
}

/**
 * Moves a process to the cgroups in which the caller is, so that those it was in can go. `ownCgroups`: the text of /proc/self/cgroup (cgroups(7)). A process
 * that has ended is no error.
 */
export function moveBeside(
  pid: number,
  hierarchies: readonly CgroupHierarchy[],
  ownCgroups = readFileSync("/proc/self/cgroup", "utf8"),
): void {
  for (const folder of cgroupsIn(ownCgroups, hierarchies)) {
    try {
      writeFileSync(join(folder, "cgroup.procs"), String(pid));
    } catch (cause) {
      refused(pid, folder, cause);
    }
  }
}

/** The folders of the cgroups that `text` names, a /proc/PID/cgroup, in the hierarchies that are mounted. */
export function cgroupsIn(text: string, hierarchies: readonly CgroupHierarchy[]): string[] {
  const lines = text.split("\n").map((line) => line.split(":"));
  return hierarchies.flatMap(({ mountPoint, version, controllers }) => {
    const own = lines.find(([, names = ""]) =>
      version === 2 ? names === "" : names.split(",").some((name) => controllers.includes(name)),
    );
    const path = own?.slice(2).join(":");
    return path === undefined || path === "" ? [] : [join(mountPoint, path)];
  });
}

/** Why a process was not moved: it has ended, or an error. */
function refused(pid: number, folder: string, cause: unknown): void {
  if (!hasCode(cause, "ESRCH")) throw new HuskError("host", `cannot move process ${pid} to the cgroup ${folder}`, { cause });
}
