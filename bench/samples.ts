/** Repeated measurements, and what is said of them: the median, with the spread beside it. */

export interface Summary {
  readonly medianMs: number;
  readonly minMs: number;
  readonly maxMs: number;
  readonly runs: number;
}

/** The median and the spread of some durations in milliseconds. Throws where there are none. */
export function summarize(samples: readonly number[]): Summary {
  const sorted = samples.toSorted((a, b) => a - b);
  const [minMs, maxMs] = [sorted.at(0), sorted.at(-1)];
  const [low, high] = [sorted[Math.floor((sorted.length - 1) / 2)], sorted[Math.ceil((sorted.length - 1) / 2)]];
  if (minMs === undefined || maxMs === undefined || low === undefined || high === undefined)
    throw new Error("expected at least one sample");
  return { medianMs: (low + high) / 2, minMs, maxMs, runs: sorted.length };
}

/**
 * Measures several things `runs` times in turn, so that what else the machine does in the meantime hits all of them alike. Each measurement
 * answers its milliseconds; a first round of each, not counted, warms the caches.
 */
export async function interleave<Name extends string>(
  runs: number,
  measurements: Readonly<Record<Name, () => Promise<number>>>,
): Promise<Record<Name, Summary>> {
  const names = Object.keys(measurements) as Name[];
  const samples = new Map<Name, number[]>(names.map((name) => [name, []]));
  for (let run = -1; run < runs; run += 1) {
    for (const name of names) {
      const ms = await measurements[name]();
      if (run >= 0) samples.get(name)?.push(ms);
    }
  }
  return Object.fromEntries(names.map((name) => [name, summarize(samples.get(name) ?? [])])) as Record<Name, Summary>;
}
