/** What a benchmark measures, and what it makes of it. */
import type { BenchHost } from "./bench-host.ts";
import type { Better, Summary } from "./statistics.ts";

export type Unit = "ms" | "MB/s" | "MiB";

/** A bound on a figure, as DESIGN.md's section 9 and the issues have it. */
export interface Goal {
  /** What husk's value is a multiple of; absent: `bound` is a value of the figure's own unit. */
  readonly of?: string;
  readonly bound: number;
}

/** What a figure is. */
export interface FigureKind {
  readonly name: string;
  readonly unit: Unit;
  readonly better: Better;
  readonly goals: readonly Goal[];
}

/** One thing that is measured: husk's value of it, and others' beside it. Each measurement answers one sample. */
export interface Figure extends FigureKind {
  readonly husk: () => Promise<number>;
  readonly beside: Readonly<Record<string, () => Promise<number>>>;
}

/** A figure all of whose samples come at once, such as what each of many sandboxes takes. */
export interface Collected {
  readonly kind: FigureKind;
  /** husk's first, as "husk". */
  readonly samples: ReadonlyMap<string, readonly number[]>;
}

/** Some figures that are measured together. Whatever it makes is the host's, or is given back at `close`. */
export interface Part {
  readonly figures: readonly Figure[];
  readonly collect?: () => Promise<readonly Collected[]>;
  readonly close?: () => Promise<void>;
}

/** What the benchmarks are told. */
export interface Settings {
  /** How often each thing is measured. */
  readonly runs: number;
  /** How many sandboxes at once. */
  readonly crowds: readonly number[];
  /** How much is sent through streams, in MiB. */
  readonly mebibytes: number;
  /** Whether husk alone is measured, as for the comparison of two of its commits. */
  readonly alone: boolean;
}

/** Prepares a part's measurements. */
export type PartMaker = (host: BenchHost, settings: Settings) => Promise<Part>;

/** A goal, and whether it was met. */
export interface GoalResult extends Goal {
  /** What `bound` bounds. */
  readonly value: number;
  readonly met: boolean;
}

export interface FigureResult {
  readonly part: string;
  readonly name: string;
  readonly unit: Unit;
  readonly better: Better;
  /** husk's first. */
  readonly series: readonly { readonly name: string; readonly summary: Summary }[];
  readonly goals: readonly GoalResult[];
}

/** Puts a figure's measurements together. */
export function resultOf(part: string, figure: FigureKind, measured: ReadonlyMap<string, Summary>): FigureResult {
  const { name, unit, better } = figure;
  const series = [...measured].map(([each, summary]) => ({ name: each, summary }));
  const husk = measured.get("husk");
  const goals = figure.goals.flatMap((goal) => {
    const other = goal.of === undefined ? 1 : measured.get(goal.of)?.median;
    if (husk === undefined || other === undefined) return []; // what it is measured by was left out
    const value = husk.median / other;
    return [{ ...goal, value, met: better === "less" ? value <= goal.bound : value >= goal.bound }];
  });
  return { part, name, unit, better, series, goals };
}

/** A goal in words, such as "2.1 x runc, at most 2". */
export function goalText({ of, bound, value }: GoalResult, { unit, better }: Pick<FigureResult, "unit" | "better">): string {
  const limit = `${better === "less" ? "at most" : "at least"} ${bound}`;
  return of === undefined ? `${rounded(value)} ${unit}, ${limit}` : `${rounded(value)} x ${of}, ${limit}`;
}

/** Three digits that count. */
export function rounded(value: number): string {
  return Math.abs(value) >= 100 ? value.toFixed(0) : value.toPrecision(3);
}
