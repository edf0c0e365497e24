/** Many sandboxes: started at once, and what each takes of the host's memory. */
import { setTimeout } from "node:timers/promises";
import { settleMs } from "../../src/host/frugal.ts";
import type { BenchHost, Way } from "../bench-host.ts";
import type { Collected, Figure, Part, Settings } from "../figure.ts";

const cloned: Way = { templates: true };

/** How long it takes until as many have run `true` as were started at once. */
export async function crowd(host: BenchHost, { crowds }: Settings): Promise<Part> {
  const bundle = await host.bundle(["/bin/true"]);
  const way = await host.warm(cloned, bundle);
  const together = async (runtime: Way | "runc", count: number): Promise<number> => {
    const began = performance.now();
    await Promise.all(Array.from({ length: count }, () => host.run(runtime, bundle)));
    return performance.now() - began;
  };
  const figures = crowds.map((count): Figure => {
    const one = { "one alone": () => together(way, 1) };
    return {
      name: `${count} started at once, to the last one's end`,
      unit: "ms",
      better: "less",
      husk: () => together(way, count),
      beside: { "runc run": () => together("runc", count), ...(count === 1 ? {} : one) },
      goals: count === 20 ? [{ of: "one alone", bound: 10 }] : [],
    };
  });
  return { figures };
}

export interface SandboxMemory {
  readonly pss: number;
  readonly processes: readonly { readonly role: string; readonly pss: number }[];
}

/** A container's limit with which its virtual machine has 256 MiB: the default of vm.memory_overhead is as much again. */
const memoryBytes = 128 * 2 ** 20;

/** The PSS of a sandbox that does nothing, where so many are alive; each sandbox is a sample. Beside it, what each of its processes takes of that. */
export async function memory(host: BenchHost, { crowds }: Settings): Promise<Part> {
  const collect = async (): Promise<Collected[]> => {
    const all: Collected[] = [];
    const way = await host.warm(cloned, await host.bundle(["/bin/true"], "folder", { memoryBytes }));
    for (const root of ["image", "folder"] as const) {
      const bundle = await host.bundle(["/bin/sleep", "1000000"], root, { memoryBytes });
      for (const count of [1, 10, ...crowds.filter((crowd) => crowd >= 50)]) {
        const goals = root === "image" && count === 10 ? [{ bound: 60 }, { bound: 40 }] : [];
        const name = `memory of one of ${count}, 256 MiB, ${root === "image" ? "an image" : "a folder"} as root`;
        all.push({ kind: { name, unit: "MiB", better: "less", goals }, samples: await measure(host, way, bundle, count) });
      }
    }
    return all;
  };
  return { figures: [], collect };
}

async function measure(host: BenchHost, way: Way, bundle: string, count: number): Promise<ReadonlyMap<string, readonly number[]>> {
  const alive: { remove: () => Promise<void> }[] = [];
  for (let member = 0; member < count; member += 1) alive.push(await host.detach(way, bundle));
  await setTimeout(2 * settleMs); // until then they have yet to become idle
  const { output } = await host.husk(way, ["stats", "--host", "--format", "json"]);
  for (const { remove } of alive) await remove();
  return byRole(JSON.parse(output) as SandboxMemory[]);
}

/** What all of a sandbox takes, as "husk", and each of its processes, in MiB; a sample a sandbox. */
export function byRole(sandboxes: readonly SandboxMemory[]): ReadonlyMap<string, readonly number[]> {
  const roles = new Set(sandboxes.flatMap(({ processes }) => processes.map(({ role }) => role)));
  const of = ({ processes }: SandboxMemory, wanted: string): number =>
    processes.reduce((sum, { role, pss }) => sum + (role === wanted ? pss : 0), 0) / 2 ** 20;
  const whole = sandboxes.map(({ pss }) => pss / 2 ** 20);
  return new Map([["husk", whole], ...[...roles].map((role) => [role, sandboxes.map((each) => of(each, role))] as const)]);
}
