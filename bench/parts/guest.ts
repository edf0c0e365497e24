/** What a sandbox takes of its guest's memory for itself: kernel, agent and the container's namespaces; and how large the agent's file is. */
import { statSync } from "node:fs";
import { join } from "node:path";
import type { BenchHost, Flavour } from "../bench-host.ts";
import type { Collected, Part } from "../figure.ts";

export function guest(host: BenchHost): Promise<Part> {
  const collect = async (): Promise<Collected[]> => {
    const figures: Collected[] = [];
    for (const flavour of ["own", "debian"] as const) {
      const kind = {
        name: `guest memory taken of what its kernel sees, ${flavour} kernel`,
        unit: "MiB",
        better: "less",
        goals: [],
      } as const;
      figures.push({ kind, samples: new Map([["husk", [await taken(host, flavour)]]]) });
    }
    const agent = statSync(join(host.checkout, "guest-agent/target/release/husk-agent")).size / 2 ** 20;
    const kind = { name: "the agent's file", unit: "MiB", better: "less", goals: [] } as const;
    return [...figures, { kind, samples: new Map([["husk", [agent]]]) }];
  };
  return Promise.resolve({ figures: [], collect });
}

/** Asks a guest, from a container, for what is not free for programs, in MiB. */
async function taken(host: BenchHost, flavour: Flavour): Promise<number> {
  const bundle = await host.bundle(["/bin/cat", "/proc/meminfo"]);
  const { output } = await host.husk({ flavour }, ["run", "--bundle", bundle, host.nextId()]);
  const field = (name: string): number => {
    const found = new RegExp(`^${name}:\\s+(\\d+) kB$`, "m").exec(output)?.[1];
    if (found === undefined) throw new Error(`the guest told no ${name}`);
    return Number(found) / 1024;
  };
  return field("MemTotal") - field("MemAvailable");
}
