/** Runs parts: of one husk beside others, or of two husks in turn. */
import type { BenchHost } from "./bench-host.ts";
import { type FigureKind, type FigureResult, type Part, type PartMaker, resultOf, type Settings } from "./figure.ts";
import { compare, type Difference, interleave, type Summary, summarize } from "./statistics.ts";

/** Measures a part of one husk; `onFigure` is told of each figure as it is there. */
export async function measurePart(
  name: string,
  make: PartMaker,
  host: BenchHost,
  settings: Settings,
  onFigure: (figure: FigureResult) => void,
): Promise<FigureResult[]> {
  const part = await make(host, settings);
  try {
    const results: FigureResult[] = [];
    const add = (kind: FigureKind, measured: ReadonlyMap<string, Summary>): void => {
      const result = resultOf(name, kind, measured);
      results.push(result);
      onFigure(result);
    };
    for (const figure of part.figures) {
      add(figure, await interleave(settings.runs, new Map([["husk", figure.husk], ...Object.entries(figure.beside)])));
    }
    for (const { kind, samples } of (await part.collect?.()) ?? []) {
      add(kind, new Map([...samples].map(([of, taken]) => [of, summarize(taken)])));
    }
    return results;
  } finally {
    await part.close?.();
  }
}

/** A figure of two husks. */
export interface Compared extends Difference {
  readonly name: string;
  readonly kind: FigureKind;
  readonly before: Summary;
  readonly after: Summary;
}

/** Measures a part of two husks in turn: A B A B. */
export async function comparePart(
  make: PartMaker,
  [before, after]: readonly [BenchHost, BenchHost],
  settings: Settings,
  onFigure: (figure: Compared) => void,
): Promise<Compared[]> {
  const parts: Part[] = [];
  try {
    for (const host of [before, after]) parts.push(await make(host, settings));
    const [first, second] = parts;
    if (first === undefined || second === undefined) throw new Error("expected two parts");
    const results: Compared[] = [];
    const add = (kind: FigureKind, a: Summary, b: Summary): void => {
      const compared = { name: kind.name, kind, before: a, after: b, ...compare(a, b, kind.better) };
      results.push(compared);
      onFigure(compared);
    };
    for (const figure of first.figures) {
      const other = second.figures.find(({ name }) => name === figure.name);
      if (other === undefined) continue; // only one of them has it: there is nothing to compare
      const sides = { before: figure.husk, after: other.husk };
      const measured = await interleave(settings.runs, new Map(Object.entries(sides)));
      add(figure, samplesOf(measured, "before"), samplesOf(measured, "after"));
    }
    for (const { kind, before: a, after: b } of await collectInTurn(first, second)) add(kind, summarize(a), summarize(b));
    return results;
  } finally {
    for (const part of parts) await part.close?.();
  }
}

function samplesOf(measured: ReadonlyMap<string, Summary>, name: string): Summary {
  const summary = measured.get(name);
  if (summary === undefined) throw new Error(`${name} was not measured`);
  return summary;
}

interface Pair {
  readonly kind: FigureKind;
  readonly before: number[];
  readonly after: number[];
}

/** Twice each, in turn. */
async function collectInTurn(first: Part, second: Part): Promise<Pair[]> {
  const pairs = new Map<string, Pair>();
  for (let round = 0; round < 2; round += 1) {
    for (const [part, side] of [
      [first, "before"],
      [second, "after"],
    ] as const) {
      for (const { kind, samples } of (await part.collect?.()) ?? []) {
        const pair = pairs.get(kind.name) ?? { kind, before: [], after: [] };
        pair[side].push(...(samples.get("husk") ?? []));
        pairs.set(kind.name, pair);
      }
    }
  }
  return [...pairs.values()].filter(({ before, after }) => before.length > 0 && after.length > 0);
}
