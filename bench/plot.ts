/** A figure as an SVG: a bar a series, as long as its median, with its spread and each of its samples on it, and a line where a goal is. */
import { type FigureResult, type GoalResult, rounded } from "./figure.ts";

/** In pixels. */
const [labelWidth, plotWidth, valueWidth] = [210, 480, 110];
const [rowHeight, barHeight, top, bottom] = [30, 16, 8, 26];

const colours = {
  husk: "#2563eb",
  other: "#94a3b8",
  sample: "#0f172a",
  met: "#15803d",
  missed: "#b91c1c",
  grid: "#e2e8f0",
  text: "#334155",
};

export function plot(figure: FigureResult): string {
  const lines = figure.goals.flatMap((goal) => goalAt(figure, goal));
  const most = Math.max(...figure.series.map(({ summary }) => summary.max), ...lines.map(({ at }) => at));
  const step = niceStep(most);
  const end = Math.ceil(most / step) * step;
  const x = (value: number): number => round(labelWidth + (value / end) * plotWidth);
  const height = top + figure.series.length * rowHeight + bottom;
  const axisY = height - bottom;
  const ticks = Array.from({ length: Math.round(end / step) + 1 }, (_, index) => index * step);
  const parts = [
    ...ticks.map(
      (tick) => `<path d="M${x(tick)} ${top}V${axisY}" stroke="${colours.grid}"/>${text(x(tick), axisY + 16, "middle", number(tick))}`,
    ),
    ...figure.series.map((series, index) => bar(series, top + index * rowHeight, x)),
    ...lines.map(
      ({ at, met }) =>
        `<path d="M${x(at)} ${top}V${axisY}" stroke="${met ? colours.met : colours.missed}" stroke-width="1.5" stroke-dasharray="5 3"/>`,
    ),
    text(labelWidth + plotWidth + valueWidth, axisY + 16, "end", figure.unit),
  ];
  const width = labelWidth + plotWidth + valueWidth;
  return `<svg xmlns="http://www.w3.org/2000/svg" width="${width}" height="${height}" viewBox="0 0 ${width} ${height}" font-family="system-ui, sans-serif" font-size="12" role="img" aria-label="${escape(figure.name)}">${parts.join("")}</svg>`;
}

function bar({ name, summary }: FigureResult["series"][number], y: number, x: (value: number) => number): string {
  const middle = y + rowHeight / 2;
  const fill = name === "husk" ? colours.husk : colours.other;
  const [least, most] = [x(summary.min), x(summary.max)];
  return [
    text(labelWidth - 8, middle + 4, "end", name),
    `<rect x="${labelWidth}" y="${middle - barHeight / 2}" width="${round(x(summary.median) - labelWidth)}" height="${barHeight}" fill="${fill}" fill-opacity="0.75"/>`,
    `<path d="M${least} ${middle}H${most}M${least} ${middle - 5}v10M${most} ${middle - 5}v10" stroke="${colours.sample}" fill="none"/>`,
    ...summary.samples.map((sample) => `<circle cx="${x(sample)}" cy="${middle}" r="2" fill="${colours.sample}" fill-opacity="0.45"/>`),
    text(labelWidth + plotWidth + 8, middle + 4, "start", rounded(summary.median)),
  ].join("");
}

/** Where a goal's bound lies on the figure's own scale. */
function goalAt(figure: FigureResult, { of, bound, met }: GoalResult): { readonly at: number; readonly met: boolean }[] {
  const other = of === undefined ? 1 : figure.series.find(({ name }) => name === of)?.summary.median;
  return other === undefined ? [] : [{ at: bound * other, met }];
}

/** A step of 1, 2 or 5 times a power of ten, of which four to ten reach to `most`. */
export function niceStep(most: number): number {
  if (!(most > 0)) return 1;
  const power = 10 ** Math.floor(Math.log10(most / 4));
  return ([5, 2, 1].find((factor) => factor * power <= most / 4) ?? 1) * power;
}

function text(x: number, y: number, anchor: "start" | "middle" | "end", words: string): string {
  return `<text x="${x}" y="${y}" text-anchor="${anchor}" fill="${colours.text}">${escape(words)}</text>`;
}

export function escape(words: string): string {
  return words.replaceAll("&", "&amp;").replaceAll("<", "&lt;").replaceAll(">", "&gt;").replaceAll('"', "&quot;");
}

function number(value: number): string {
  return String(Number(value.toPrecision(6)));
}

function round(value: number): number {
  return Math.round(value * 10) / 10;
}
