/** What the benchmarks leave: a table on the terminal, a JSON file, and a page with a plot for each figure. */
import { mkdirSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { type FigureResult, goalText, rounded } from "./figure.ts";
import { escape, plot } from "./plot.ts";
import { table } from "./table.ts";

export interface Report {
  /** When, in ISO 8601. */
  readonly at: string;
  readonly commit: string;
  /** What it was measured on. */
  readonly machine: Readonly<Record<string, string>>;
  readonly runs: number;
  readonly figures: readonly FigureResult[];
}

/** Keeps a report in `folder` as JSON and as a page; answers their paths. */
export function keepReport(report: Report, folder: string): string[] {
  mkdirSync(folder, { recursive: true });
  const name = report.at.replaceAll(":", "-");
  const files = [
    [`${name}.json`, `${JSON.stringify(report, null, 2)}\n`],
    [`${name}.html`, page(report)],
  ] as const;
  return files.map(([file, content]) => {
    const path = join(folder, file);
    writeFileSync(path, content);
    return path;
  });
}

/** The figures for a terminal: a line for husk and for each thing beside it. */
export function reportTable({ figures }: Report): string {
  const rows = figures.flatMap((figure) =>
    figure.series.map(({ name, summary: { median, min, max } }, index) => {
      const spread = min === max ? "" : `${rounded(min)} to ${rounded(max)}`;
      const ratio = index === 0 ? "" : rounded((figure.series[0]?.summary.median ?? Number.NaN) / median);
      return [index === 0 ? figure.name : "", name, `${rounded(median)} ${figure.unit}`, spread, ratio];
    }),
  );
  return table(["figure", "of", "median", "spread", "husk's by it"], rows);
}

/** The goals for a terminal, met and missed; nothing where there are none. */
export function goalTable({ figures }: Report): string {
  const rows = figures.flatMap((figure) => figure.goals.map((goal) => [figure.name, goalText(goal, figure), goal.met ? "met" : "missed"]));
  return rows.length === 0 ? "" : `${table(["figure", "goal", ""], rows)}\n`;
}

/** The page: one file that needs no other. */
export function page(report: Report): string {
  const parts = [...new Set(report.figures.map(({ part }) => part))];
  const facts = { commit: report.commit, ...report.machine, runs: `${report.runs} of each, in turn` };
  return `<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>husk's benchmarks, ${escape(report.at)}</title>
<style>
body { font: 15px/1.5 system-ui, sans-serif; color: #0f172a; max-width: 860px; margin: 2rem auto; padding: 0 1rem; }
h2 { margin-top: 2.5rem; text-transform: capitalize; } h3 { font-size: 1rem; margin: 1.5rem 0 0; }
dl { display: grid; grid-template-columns: max-content 1fr; gap: 0 1rem; } dt { color: #64748b; } dd { margin: 0; }
.met { color: #15803d; } .missed { color: #b91c1c; } p { margin: 0.2rem 0; } svg { max-width: 100%; height: auto; }
</style>
<h1>husk's benchmarks</h1>
<dl>${Object.entries(facts)
    .map(([name, value]) => `<dt>${escape(name)}</dt><dd>${escape(value)}</dd>`)
    .join("")}<dt>at</dt><dd>${escape(report.at)}</dd></dl>
<p>A bar is a median; on it lie the samples, from the least to the most. A dashed line is a goal: green where it is met, red where it is missed.</p>
${parts
  .map(
    (part) =>
      `<h2>${escape(part)}</h2>\n${report.figures
        .filter((figure) => figure.part === part)
        .map(section)
        .join("\n")}`,
  )
  .join("\n")}
</html>
`;
}

function section(figure: FigureResult): string {
  const goals = figure.goals.map(
    (goal) => `<p class="${goal.met ? "met" : "missed"}">${escape(goalText(goal, figure))}: ${goal.met ? "met" : "missed"}</p>`,
  );
  const better = figure.better === "less" ? "less is better" : "more is better";
  return `<h3>${escape(figure.name)}, ${figure.unit} (${better})</h3>\n${goals.join("")}\n${plot(figure)}`;
}
