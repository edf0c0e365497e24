/** Starts: booted, cloned from a template, taken from a pool; beside runc and a bare QEMU. */
import { mkdirSync } from "node:fs";
import { join } from "node:path";
import { BareMachine } from "../bare-machine.ts";
import { type BenchHost, end, type Flavour, type Way } from "../bench-host.ts";
import type { Figure, Part, Settings } from "../figure.ts";

export async function start(host: BenchHost, { alone }: Settings): Promise<Part> {
  const [echo, nothing, image] = await Promise.all([
    host.bundle(["/bin/echo", "ready"]),
    host.bundle(["/bin/true"]),
    host.bundle(["/bin/true"], "image"),
  ]);
  const runc = (bundle: string) => (): Promise<number> => host.run("runc", bundle);
  const cloned: Way = { templates: true };
  const own = await floor(host, "own");
  const debian = await floor(host, "debian");
  if (!alone) await own.save();
  const copied = await host.warm(cloned, nothing);
  const figures: Figure[] = [
    { ...cold(host, echo, "own", own), goals: [{ of: "bare QEMU", bound: 1.3 }] },
    { ...cold(host, echo, "debian", debian), goals: [{ of: "bare QEMU", bound: 1.2 }] },
    {
      name: "run of true, booted",
      ...milliseconds,
      husk: () => host.run({}, nothing),
      beside: { "runc run": runc(nothing) },
      goals: [],
    },
    {
      name: "run of true from a template without a zygote, a folder as root",
      ...milliseconds,
      husk: () => host.run(cloned, nothing),
      beside: { "runc run": runc(nothing), "bare QEMU restored": () => own.restore() },
      goals: [],
    },
    {
      name: "run of true from a template, a folder as root",
      ...milliseconds,
      husk: () => host.run(copied, nothing),
      beside: { "runc run": runc(nothing), "bare QEMU restored": () => own.restore() },
      goals: [{ of: "runc run", bound: 6 }],
    },
    {
      name: "run of true from a template, an image as root",
      ...milliseconds,
      husk: () => host.run(copied, image),
      beside: { "runc run": runc(nothing), "bare QEMU restored": () => own.restore() },
      goals: [
        { of: "runc run", bound: 4 },
        { of: "bare QEMU restored", bound: 2 },
      ],
    },
  ];
  for (const { root, bundle, bound } of [
    { root: "folder", bundle: nothing, bound: 6 },
    { root: "image", bundle: image, bound: 4 },
  ] as const) {
    for (const [how, atOnce] of [
      ["by a sandbox that stands by", false],
      ["one after the other", true],
    ] as const) {
      const standing = await host.standby(copied, bundle, root, atOnce);
      if (standing === undefined) continue;
      figures.push({
        name: `run of true from a template, ${how}, ${root === "folder" ? "a folder" : "an image"} as root`,
        ...milliseconds,
        husk: standing,
        beside: { "runc run": runc(nothing) },
        goals: [{ of: "runc run", bound }],
      });
    }
  }
  if (!(await host.has("pool"))) return { figures };
  const pool = join(host.folder, "pool");
  mkdirSync(pool, { mode: 0o700 });
  const keeper = host.startHusk({ templates: true, pool }, ["pool", "--size", "1"]);
  for (const stream of [keeper.stdout, keeper.stderr]) stream?.resume();
  const pooled: Figure = {
    name: "run of true from the pool",
    ...milliseconds,
    husk: async () => {
      await host.waits(pool);
      return host.run({ ...cloned, pool }, nothing);
    },
    beside: { "runc run": runc(nothing) },
    goals: [{ of: "runc run", bound: 2.5 }],
  };
  return { figures: [...figures, pooled], close: () => end(keeper) };
}

const milliseconds = { unit: "ms", better: "less" } as const;

function cold(host: BenchHost, bundle: string, flavour: Flavour, bare: BareMachine): Omit<Figure, "goals"> {
  return {
    name: `cold boot to first output, ${flavour} kernel`,
    ...milliseconds,
    husk: async () =>
      (await host.husk({ flavour }, ["run", "--bundle", bundle, host.nextId()], { until: ["ready"] })).marks[0] ?? Number.NaN,
    beside: { "bare QEMU": () => bare.boot() },
  };
}

/** The bare machine beside husk's of that flavour. */
async function floor(host: BenchHost, flavour: Flavour): Promise<BareMachine> {
  const { remove } = await host.detach({ flavour }, await host.bundle(["/bin/sleep", "1000000"]));
  const folder = join(host.folder, `bare-${flavour}`);
  mkdirSync(folder);
  try {
    return BareMachine.beside(host.root, folder);
  } finally {
    await remove();
  }
}
