/** The processes behind one of husk's containers, for tests that kill them. */
import { readFileSync, readlinkSync } from "node:fs";
import { join } from "node:path";
import type { Host } from "./host.ts";
import { descendants, type HostProcess, listProcesses, readProcess } from "./processes.ts";

/** sandbox: the helper that holds the namespaces; init: their PID 1. */
export const sandboxParts = ["supervisor", "sandbox", "init", "virtiofsd", "qemu"] as const;

export type SandboxPart = (typeof sandboxParts)[number];

/** How many virtual machines there are, whoever runs them. A template's zygote does not run. */
export function countMachines(): number {
  const all = listProcesses();
  const machines = all.filter(isQemu);
  const parts = (pid: number): HostProcess[] =>
    all.filter(({ parent }) => parent === pid).flatMap((each) => [each, ...(isQemu(each) ? [] : parts(each.pid))]);
  const zygotes = all
    .filter(({ command }) => command.includes("supervisor.js zygote-keeper "))
    .flatMap(({ pid }) => parts(pid))
    .filter(isQemu);
  return machines.length - zygotes.length;
}

/** Finds one of them; undefined where it is not there (yet, or any more). */
export function findPart(host: Host, id: string, part: SandboxPart): HostProcess | undefined {
  const supervisor = supervisorPid(host, id);
  if (supervisor === undefined) return undefined;
  if (part === "supervisor") return readProcess(supervisor);
  const below = descendants(supervisor);
  if (part === "qemu") return qemuOf(supervisor);
  if (part === "virtiofsd") return below.find(({ name }) => name === "virtiofsd");
  const sandbox = below.find(({ parent, command }) => parent === supervisor && command.endsWith("husk-helper sandbox"));
  return part === "sandbox" ? sandbox : below.find(({ parent }) => parent === sandbox?.pid);
}

function isQemu({ name }: HostProcess): boolean {
  return name.startsWith("qemu-system");
}

/** The QEMU of the sandbox that a process serves: it is in the namespaces of its sandbox, whether it was started there or is a zygote's copy. */
export function qemuOf(supervisor: number): HostProcess | undefined {
  const own = pidNamespace(process.pid);
  const inside = new Set(
    descendants(supervisor)
      .map(({ pid }) => pidNamespace(pid))
      .filter((name) => name !== "" && name !== own),
  );
  return listProcesses().find((each) => isQemu(each) && inside.has(pidNamespace(each.pid)));
}

function pidNamespace(pid: number): string {
  try {
    return readlinkSync(`/proc/${pid}/ns/pid`);
  } catch {
    return ""; // it ended while it was looked at
  }
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
