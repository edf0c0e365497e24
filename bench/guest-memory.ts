/** What a sandbox takes of its guest's memory for itself: kernel, agent and the container's namespaces; and how large the agent's file is. */
import { statSync } from "node:fs";
import { resolve } from "node:path";
import type { BenchHost } from "./bench-host.ts";

export interface GuestMemory {
  /** What the guest was given (QEMU's -m), and what its kernel counts of it as there, and as free for programs; MiB. */
  readonly givenMiB: number;
  readonly totalMiB: number;
  readonly availableMiB: number;
  readonly agentFileMiB: number;
}

/** Asks a guest of the flavour, from a container. `givenMiB`: what QEMU was given. */
export async function guestMemory(host: BenchHost, flavour: string, givenMiB: number): Promise<GuestMemory> {
  await host.setProgram(["/bin/cat", "/proc/meminfo"]);
  const { output } = await host.husk(flavour, ["run", "--bundle", host.bundle, host.nextId()]);
  const field = (name: string): number => {
    const found = new RegExp(`^${name}:\\s+(\\d+) kB$`, "m").exec(output)?.[1];
    if (found === undefined) throw new Error(`the guest told no ${name}`);
    return Number(found) / 1024;
  };
  return {
    givenMiB,
    totalMiB: field("MemTotal"),
    availableMiB: field("MemAvailable"),
    agentFileMiB: statSync(resolve(import.meta.dirname, "../guest-agent/target/release/husk-agent")).size / 2 ** 20,
  };
}
