/** The processes behind one of husk's containers, for tests that kill them. */
import { readFileSync } from "node:fs";
import { join } from "node:path";
import type { Host } from "./host.ts";
import { descendants, type HostProcess, listProcesses, readProcess } from "./processes.ts";

/** sandbox: the helper that holds the namespaces; init: their PID 1. */
export const sandboxParts = ["supervisor", "sandbox", "init", "virtiofsd", "qemu"] as const;

export type SandboxPart = (typeof sandboxParts)[number];

/** How many virtual machines there are, whoever runs them. */
export function countMachines(): number {
  return listProcesses().filter(({ name }) => name.startsWith("qemu-system")).length;
}

/** Finds one of them; undefined where it is not there (yet, or any more). */
export function findPart(host: Host, id: string, part: SandboxPart): HostProcess | undefined {
  const supervisor = supervisorPid(host, id);
  if (supervisor === undefined) return undefined;
  if (part === "supervisor") return readProcess(supervisor);
  const below = descendants(supervisor);
  if (part === "qemu") return below.find(({ name }) => name.startsWith("qemu-system"));
  if (part === "virtiofsd") return below.find(({ name }) => name === "virtiofsd");
  const sandbox = below.find(({ parent, command }) => parent === supervisor && command.endsWith("husk-helper sandbox"));
  return part === "sandbox" ? sandbox : below.find(({ parent }) => parent === sandbox?.pid);
}

/** Kills one of them as soon as it is there. */
export async function killPart(host: Host, id: string, part: SandboxPart, signal: NodeJS.Signals = "SIGKILL"): Promise<void> {
  await host.until(() => findPart(host, id, part) !== undefined, 30_000);
  const found = findPart(host, id, part);
  if (found === undefined) throw new Error(`${part} ended by itself`);
  process.kill(found.pid, signal);
}

function supervisorPid(host: Host, id: string): number | undefined {
  try {
    const record = JSON.parse(readFileSync(join(host.root, id, "state.json"), "utf8")) as { supervisor: { pid: number } | null };
    return record.supervisor?.pid;
  } catch {
    return undefined; // not claimed yet
  }
}
