/** The cgroups of what runs on the host for a sandbox: folders that husk makes, or a scope that systemd makes. Either way, the ledger knows them first. */
import { readFileSync } from "node:fs";
import { HuskError } from "../errors.ts";
import { type CgroupHierarchy, type CgroupLimits, limitCgroups, makeCgroups } from "./cgroups.ts";
import { noteInLedger } from "./ledger.ts";
import { SandboxProcess } from "./sandbox-process.ts";
import type { Scope } from "./scope.ts";

/** Where they are to be. */
export interface CgroupPlace {
  readonly hierarchies: readonly CgroupHierarchy[];
  /** Seen from each hierarchy's root, or what systemd is asked for. */
  readonly at: string | Scope;
}

export interface SandboxCgroups {
  /** One in each hierarchy, to be joined by writing to their cgroup.procs. */
  readonly folders: readonly string[];
  /** Every one that was not there before, those above `folders` among them. */
  readonly made: readonly string[];
  /** Changes limits; what is absent stays as it is. Throws `host` where the kernel or systemd refuses one. */
  limit(limits: CgroupLimits): Promise<void>;
  /** Says that a process of the sandbox has joined them: from then on it is what keeps a scope alive. */
  joined(): void;
}

/** Makes the cgroups. `ledger`: where it is at the time; `helper`: husk's, for a process that a scope can begin with. Throws `host`, `already-exists` or `invalid-argument`. */
export async function takeCgroups(
  { hierarchies, at }: CgroupPlace,
  limits: CgroupLimits,
  ledger: () => string,
  helper: string,
): Promise<SandboxCgroups> {
  if (typeof at !== "string") return await takeScope(hierarchies, at, limits, ledger, helper);
  const { folders, made } = makeFolders(hierarchies, at, ledger);
  limitCgroups(hierarchies, at, limits);
  return { folders, made, limit: async (change) => limitCgroups(hierarchies, at, change), joined: () => {} };
}

/** Loads the client of systemd where it is needed, and nowhere else. */
async function takeScope(
  hierarchies: readonly CgroupHierarchy[],
  scope: Scope,
  limits: CgroupLimits,
  ledger: () => string,
  helper: string,
): Promise<SandboxCgroups> {
  const { describeScope, limitScope, startScope } = await import("./scope.ts");
  const version = managedVersion(hierarchies);
  // A scope without a process ends at once. This one is a sandbox's helper that gets no plan: it waits for one, and ends with this process, as the scope then does.
  const holder = SandboxProcess.start(helper, 0);
  try {
    if (holder.pid === 0) await holder.failed;
    const description = describeScope(scope);
    const note = (): void => noteInLedger(ledger(), { kind: "scope", unit: scope.unit, description });
    await startScope({ ...scope, description }, holder.pid, limits, version, note);
    const path = pathOf(readFileSync(`/proc/${holder.pid}/cgroup`, "utf8"), version);
    // systemd makes it in the hierarchies that it manages; on cgroup v1 not in all of them.
    const { folders, made } = makeFolders(hierarchies, path, ledger);
    limitCgroups(hierarchies, path, limits);
    return {
      folders,
      made,
      limit: async (change) => {
        await limitScope(scope.unit, change, version);
        limitCgroups(hierarchies, path, change);
      },
      joined: () => void holder.kill(),
    };
  } catch (error) {
    await holder.kill();
    throw error;
  }
}

function makeFolders(
  hierarchies: readonly CgroupHierarchy[],
  path: string,
  ledger: () => string,
): Pick<SandboxCgroups, "folders" | "made"> {
  const made: string[] = [];
  const folders = makeCgroups(hierarchies, path, (folder) => {
    noteInLedger(ledger(), { kind: "cgroup", path: folder });
    made.push(folder);
  });
  return { folders, made };
}

/** systemd manages cgroup v2 where it is alone, and else v1 (a "hybrid" v2 beside it has no controllers that systemd would use). */
function managedVersion(hierarchies: readonly CgroupHierarchy[]): 1 | 2 {
  return hierarchies.some(({ version }) => version === 1) ? 1 : 2;
}

/** Where a process is, by the text of its /proc/PID/cgroup (cgroups(7)), in systemd's own hierarchy. */
export function pathOf(cgroups: string, version: 1 | 2): string {
  const names = version === 2 ? "" : "name=systemd";
  for (const line of cgroups.split("\n")) {
    const [, controllers, ...path] = line.split(":");
    if (controllers === names) return path.join(":");
  }
  throw new HuskError("host", "systemd manages no cgroups here");
}
