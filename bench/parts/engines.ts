/** The same container by engines: `ctr run` through the shim, `docker run`; beside runc by the same engine, and husk's own run beside Docker's. */
import type { BenchHost, Way } from "../bench-host.ts";
import { Engines } from "../engine.ts";
import type { Figure, Part } from "../figure.ts";

const cloned: Way = { templates: true };

export async function engines(host: BenchHost): Promise<Part> {
  const opened = await Engines.open(host);
  try {
    return await prepare(host, opened);
  } catch (error) {
    await opened.close();
    throw error;
  }
}

async function prepare(host: BenchHost, opened: Engines): Promise<Part> {
  await opened.containerd();
  await opened.docker();
  const shimStands = await opened.standingContainerd();
  const bundle = await host.bundle(["/bin/true"]);
  const way = await host.warm(cloned, bundle);
  const milliseconds = { unit: "ms", better: "less" } as const;
  const beside = { "docker run with runc": (): Promise<number> => opened.dockerRun("runc") };
  const standing = await host.standby(way, bundle);
  const byStandby: Figure[] =
    standing === undefined
      ? []
      : [
          {
            name: "husk run of true from a template, by a sandbox that stands by, a folder as root",
            ...milliseconds,
            husk: standing,
            beside,
            goals: [{ of: "docker run with runc", bound: 1 }],
          },
        ];
  const ctrRun = (name: string, husk: () => Promise<number>): Figure => ({
    name,
    ...milliseconds,
    husk,
    beside: { "ctr run with runc": () => opened.ctrRun("runc") },
    goals: [{ of: "ctr run with runc", bound: 2.5 }],
  });
  return {
    figures: [
      ctrRun("ctr run of true", () => opened.ctrRun("husk")),
      ...(shimStands ? [ctrRun("ctr run of true, by a shim that stands by", () => opened.standingRun())] : []),
      {
        name: "docker run of true",
        ...milliseconds,
        husk: () => opened.dockerRun("husk"),
        beside,
        goals: [],
      },
      {
        name: "husk run of true from a template, a folder as root",
        ...milliseconds,
        husk: () => host.run(way, bundle),
        beside,
        goals: [{ of: "docker run with runc", bound: 1 }],
      },
      ...byStandby,
    ],
    close: () => opened.close(),
  };
}
