/**
 * What a host holds that a container could leave behind: processes, mounts, network links and namespaces, cgroups and files. Two snapshots
 * compared are the leak check.
 */
import { type Dirent, readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { type HostProcess, listProcesses } from "./processes.ts";

export interface Snapshot {
  readonly processes: ReadonlyMap<string, HostProcess>;
  /** Everything else, a line each, such as "mount /run/x (tmpfs)". */
  readonly things: ReadonlySet<string>;
}

/** The deepest that folders are looked into; /run and cgroups are far flatter. */
const maxDepth = 12;

/** Looks at the host now. */
export function takeSnapshot(): Snapshot {
  const processes = new Map(listProcesses().map((process) => [`${process.pid} ${process.start}`, process]));
  const mounts = readFileSync("/proc/self/mountinfo", "utf8").split("\n").filter(Boolean).map(describeMount);
  const things = [
    ...mounts.map(({ line }) => line),
    ...networkLinks().map((name) => `network link ${name}`),
    ...names("/run/netns").map((name) => `network namespace ${name}`),
    ...mounts.filter(({ type }) => type === "cgroup" || type === "cgroup2").flatMap(({ target }) => foldersBelow(target)),
    ...filesBelow("/run"),
    ...filesBelow("/dev/shm"),
    ...names("/tmp").map((name) => `file /tmp/${name}`),
  ];
  return { processes, things: new Set(things) };
}

/** What differs, a line each: "+ process 12 (sleep 5)", "- mount /mnt (tmpfs)". Processes that others have started meanwhile do not count. */
export function compareSnapshots(before: Snapshot, after: Snapshot): string[] {
  const added = [...after.processes].filter(([key, process]) => !before.processes.has(key) && isOurs(process, before, after));
  const knownNamespaces = new Set([...before.processes.values()].map((process) => process.networkNamespace));
  const namespaces = new Set(
    added.map(([, process]) => process.networkNamespace).filter((name) => name !== "" && !knownNamespaces.has(name)),
  );
  return [
    ...added.map(([, { pid, state, name, command }]) => `+ process ${pid} (${command || name})${state === "Z" ? " zombie" : ""}`),
    ...[...namespaces].map((name) => `+ network namespace ${name}`),
    ...[...after.things].filter((thing) => !before.things.has(thing)).map((thing) => `+ ${thing}`),
    ...[...before.things].filter((thing) => !after.things.has(thing)).map((thing) => `- ${thing}`),
  ];
}

/**
 * Whether a process that was not there before comes from this test: its nearest ancestor that was there is this process, or one of its own ancestors
 * (PID 1 or a subreaper, which orphans fall to). A zombie of PID 1 is PID 1's to reap.
 */
function isOurs(process: HostProcess, before: Snapshot, after: Snapshot): boolean {
  if (process.state === "Z" && process.parent === 1) return false;
  if (isZygotes(process, after)) return false;
  const byPid = new Map([...after.processes.values()].map((each) => [each.pid, each]));
  const existed = (each: HostProcess): boolean => before.processes.has(`${each.pid} ${each.start}`);
  let ancestor = byPid.get(process.parent);
  while (ancestor !== undefined && !existed(ancestor)) ancestor = byPid.get(ancestor.parent);
  return ancestor === undefined || lineage(byPid).has(ancestor.pid);
}

/** Whether it keeps a template's zygote, which is nobody's container's and ends by itself, or is a part of that. */
function isZygotes(process: HostProcess, { processes }: Snapshot): boolean {
  const byPid = new Map([...processes.values()].map((each) => [each.pid, each]));
  for (let each: HostProcess | undefined = process; each !== undefined; each = byPid.get(each.parent))
    if (each.command.includes("supervisor.js zygote-keeper ")) return true;
  return false;
}

/** This process and its ancestors. */
function lineage(byPid: ReadonlyMap<number, HostProcess>): Set<number> {
  const pids = new Set<number>();
  for (let each = byPid.get(process.pid); each !== undefined; each = byPid.get(each.parent)) pids.add(each.pid);
  return pids;
}

function describeMount(line: string): { readonly line: string; readonly target: string; readonly type: string } {
  const [left = "", right = ""] = line.split(" - ");
  const target = left.split(" ")[4] ?? "";
  const type = right.split(" ")[0] ?? "";
  return { line: `mount ${target} (${type})`, target, type };
}

/** The links of this process's network namespace: /sys/class/net shows those of the mount's. */
function networkLinks(): string[] {
  return readFileSync("/proc/self/net/dev", "utf8")
    .split("\n")
    .slice(2)
    .flatMap((line) => line.split(":")[0]?.trim() || []);
}

function foldersBelow(folder: string, depth = 0): string[] {
  if (depth > maxDepth) return [];
  return entries(folder)
    .filter((entry) => entry.isDirectory())
    .flatMap(({ name }) => [`cgroup ${join(folder, name)}`, ...foldersBelow(join(folder, name), depth + 1)]);
}

function filesBelow(folder: string, depth = 0): string[] {
  if (depth > maxDepth) return [];
  return entries(folder).flatMap((entry) => {
    const path = join(folder, entry.name);
    return [`file ${path}`, ...(entry.isDirectory() ? filesBelow(path, depth + 1) : [])];
  });
}

function names(folder: string): string[] {
  return entries(folder).map((entry) => entry.name);
}

function entries(folder: string): Dirent[] {
  try {
    return readdirSync(folder, { withFileTypes: true });
  } catch {
    return []; // not there, or just gone
  }
}
