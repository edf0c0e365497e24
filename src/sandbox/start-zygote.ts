/** Starts the keeper of a template's zygote, beside the sandbox that found none: the ones after it are copied. */
import { spawn } from "node:child_process";
import { closeSync, openSync, readFileSync, rmSync, statSync } from "node:fs";
import { join } from "node:path";
import { installationFolder } from "../host/installation.ts";
import { hasCode } from "../host/system-error.ts";
import type { TemplateShape } from "../template/shape.ts";
import type { Template } from "../template/store.ts";
import { hasZygote } from "../template/zygote.ts";
import type { SandboxSpec } from "./sandbox-plan.ts";

/** The first word of the keeper's command line. */
export const zygoteKeeper = "zygote-keeper";

/** What the keeper is told. */
export interface ZygoteOrder {
  readonly template: Pick<Template, "key" | "folder">;
  readonly idleMs: number;
  /** The machine, as a sandbox of the template has it. */
  readonly machine: TemplateShape & Pick<SandboxSpec, "guestConsoleBytes">;
}

/** Where the keeper's complaints go. Beside the template as long as it lives, and where it failed: then nobody tries again for a while. */
export function keeperLog({ folder }: Pick<Template, "folder">): string {
  return join(folder, "zygote.log");
}

/** Many sandboxes may find at once that there is none, and a host may be unable to have one: so long, in milliseconds, the last start stands for all. */
const startHoldsMs = 10 * 60_000;

/** Starts a keeper where the spec wants one and nobody has done so. Whatever keeps it from starting leaves sandboxes as they are, so it is told in the log alone. */
export function startZygote(spec: SandboxSpec): void {
  const { template, wantsZygoteMs: idleMs } = spec;
  if (template === null || idleMs === undefined || hasZygote(template) || isBelowConmon()) return;
  let log: number | undefined;
  try {
    log = claimStart(keeperLog(template));
    if (log === undefined) return;
    const order: ZygoteOrder = { template: { key: template.key, folder: template.folder }, idleMs, machine: machineOf(spec) };
    const words = [
      "--no-warnings",
      ...process.execArgv,
      join(installationFolder(), "dist/supervisor.js"),
      zygoteKeeper,
      JSON.stringify(order),
    ];
    const child = spawn(process.execPath, words, { stdio: ["ignore", "ignore", log], detached: true, cwd: "/" });
    child.on("error", () => {}); // the next sandbox tries again
    child.unref();
  } catch (error) {
    if (!hasCode(error, "ENOENT", "EROFS", "ENOSPC", "EACCES")) throw error; // the template is gone, or nothing can be kept beside it
  } finally {
    if (log !== undefined) closeSync(log);
  }
}

/**
 * Whether Podman or CRI-O have started this process, by way of conmon: whatever its descendants leave behind becomes its child, and it waits for the end of them
 * all before it says that the container has ended. Their sandboxes are copied from a zygote that others have brought about.
 */
function isBelowConmon(): boolean {
  for (let pid = process.ppid; pid > 1; ) {
    const [, name, parent] = /^\d+ \((.*)\) \S (\d+) /s.exec(statOf(pid)) ?? [];
    if (name === "conmon") return true;
    pid = Number(parent ?? 0);
  }
  return false;
}

/** /proc/PID/stat; "" where the process has ended. */
function statOf(pid: number): string {
  try {
    return readFileSync(`/proc/${pid}/stat`, "utf8");
  } catch (error) {
    if (hasCode(error, "ENOENT", "ESRCH")) return "";
    throw error;
  }
}

/** The log of a keeper that is to be started; undefined where somebody has just started one. */
function claimStart(path: string): number | undefined {
  const age = Date.now() - (statSync(path, { throwIfNoEntry: false })?.mtimeMs ?? 0);
  if (age < startHoldsMs) return undefined;
  rmSync(path, { force: true });
  try {
    return openSync(path, "wx", 0o600);
  } catch (error) {
    if (hasCode(error, "EEXIST")) return undefined;
    throw error;
  }
}

function machineOf(spec: SandboxSpec): ZygoteOrder["machine"] {
  const { programs, image, accelerator, vcpus, memoryBytes, limits, translationBufferBytes, networkPorts } = spec;
  const { guestConsoleBytes, kernelParameters, tenant } = spec;
  return {
    programs,
    image,
    accelerator,
    vcpus,
    memoryBytes,
    limits,
    translationBufferBytes,
    networkPorts,
    guestConsoleBytes,
    kernelParameters,
    tenant,
  };
}
