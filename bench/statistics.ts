/** Repeated measurements: what is said of them, and whether one set of them is worse than another. */

export interface Summary {
  readonly median: number;
  readonly min: number;
  readonly max: number;
  /** In the order in which they were taken. */
  readonly samples: readonly number[];
}

/** The median and the spread. Throws where there are no samples. */
export function summarize(samples: readonly number[]): Summary {
  const sorted = samples.toSorted((a, b) => a - b);
  const [min, max] = [sorted.at(0), sorted.at(-1)];
  const [low, high] = [sorted[Math.floor((sorted.length - 1) / 2)], sorted[Math.ceil((sorted.length - 1) / 2)]];
  if (min === undefined || max === undefined || low === undefined || high === undefined) throw new Error("expected at least one sample");
  return { median: (low + high) / 2, min, max, samples };
}

/**
 * Measures several things `runs` times in turn, so that what else the machine does in the meantime hits all of them alike. A first round of each, not
 * counted, warms the caches.
 */
export async function interleave(
  runs: number,
  measurements: ReadonlyMap<string, () => Promise<number>>,
): Promise<ReadonlyMap<string, Summary>> {
  const samples = new Map<string, number[]>([...measurements.keys()].map((name) => [name, []]));
  for (let run = -1; run < runs; run += 1) {
    for (const [name, measure] of measurements) {
      const sample = await measure();
      if (run >= 0) samples.get(name)?.push(sample);
    }
  }
  return new Map([...samples].map(([name, taken]) => [name, summarize(taken)]));
}

/** Which values of a figure are the good ones. */
export type Better = "less" | "more";

export type Verdict = "same" | "better" | "worse";

export interface Difference {
  /** The second's median by the first's. */
  readonly ratio: number;
  /** How likely samples that lie apart like these, or more, are where nothing differs (Mann-Whitney, two-sided). */
  readonly probability: number;
  readonly verdict: Verdict;
}

/** A difference counts where chance makes one like it less often than this, ... */
const significance = 0.01;
/** ... and the medians differ by more than this: a smaller one may be true, and nobody would act on it. */
const relevance = 0.05;

/** Compares two sets of samples that were taken in turn: the second against the first. */
export function compare(before: Summary, after: Summary, better: Better): Difference {
  const ratio = after.median / before.median;
  const probability = mannWhitney(before.samples, after.samples);
  if (probability >= significance || Math.abs(ratio - 1) <= relevance) return { ratio, probability, verdict: "same" };
  return { ratio, probability, verdict: ratio < 1 === (better === "less") ? "better" : "worse" };
}

/**
 * The two-sided probability of the Mann-Whitney U test, which asks nothing of how the samples are distributed: the normal approximation, with ties and
 * continuity corrected. https://en.wikipedia.org/wiki/Mann%E2%80%93Whitney_U_test#Normal_approximation_and_tie_correction
 */
export function mannWhitney(a: readonly number[], b: readonly number[]): number {
  const all = [...a, ...b].toSorted((x, y) => x - y);
  const n = all.length;
  let ties = 0;
  /** The mean rank of all samples with a value. */
  const ranks = new Map<number, number>();
  for (let from = 0; from < n; ) {
    let to = from;
    while (to < n && all[to] === all[from]) to += 1;
    ranks.set(all[from] ?? 0, (from + 1 + to) / 2);
    ties += (to - from) ** 3 - (to - from);
    from = to;
  }
  const rankSum = a.reduce((sum, value) => sum + (ranks.get(value) ?? 0), 0);
  const u = rankSum - (a.length * (a.length + 1)) / 2;
  const mean = (a.length * b.length) / 2;
  const deviation = Math.sqrt(((a.length * b.length) / 12) * (n + 1 - ties / (n * (n - 1))));
  if (!(deviation > 0)) return 1;
  const z = Math.max(0, Math.abs(u - mean) - 0.5) / deviation;
  return Math.min(1, 2 * upperTail(z));
}

/** How much of the standard normal distribution lies above z >= 0 (Abramowitz and Stegun, 26.2.17; good to 7.5e-8). */
function upperTail(z: number): number {
  const t = 1 / (1 + 0.2316419 * z);
  const polynomial = t * (0.31938153 + t * (-0.356563782 + t * (1.781477937 + t * (-1.821255978 + t * 1.330274429))));
  return (Math.exp((-z * z) / 2) / Math.sqrt(2 * Math.PI)) * polynomial;
}
