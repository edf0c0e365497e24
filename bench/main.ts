/**
 * The benchmarks: `npm run bench -- [PARTS...] [FLAGS]`. Prints every figure beside what it is measured against, and each goal of DESIGN.md's, and keeps
 * all samples in results/ as JSON, with a page of plots beside it. Absolute times say what machine it was; under emulation, they say little more.
 */
import { execFileSync } from "node:child_process";
import { existsSync } from "node:fs";
import { cpus, release } from "node:os";
import { join } from "node:path";
import { parseArgs } from "node:util";
import { BenchHost } from "./bench-host.ts";
import { compareCommits, comparisonTable } from "./compare.ts";
import { type FigureResult, goalText, type PartMaker, rounded, type Settings } from "./figure.ts";
import { measurePart } from "./measure.ts";
import { calls } from "./parts/calls.ts";
import { crowd, memory } from "./parts/density.ts";
import { engines } from "./parts/engines.ts";
import { guest } from "./parts/guest.ts";
import { shim } from "./parts/shim.ts";
import { start } from "./parts/start.ts";
import { files, network, stdio } from "./parts/streams.ts";
import { goalTable, keepReport, reportTable } from "./report.ts";

const all: Readonly<Record<string, PartMaker>> = { start, calls, engines, crowd, memory, guest, shim, stdio, files, network };

const usage = `usage: npm run bench -- [PART...] [--runs N] [--mebibytes N] [--fifty] [--compare A --compare B]
  PART          ${Object.keys(all).join(", ")} (default: all)
  --runs N      how often each thing is measured (default: 10)
  --mebibytes N how much goes through streams and networks (default: 256)
  --fifty       50 sandboxes at once, as well
  --compare     given twice, with a commit each: these two in turn, husk alone; ends with 1 where the second is worse`;

const { values, positionals } = parseArgs({
  allowPositionals: true,
  options: {
    runs: { type: "string", default: "10" },
    mebibytes: { type: "string", default: "256" },
    fifty: { type: "boolean", default: false },
    compare: { type: "string", multiple: true, default: [] },
    help: { type: "boolean", short: "h", default: false },
  },
});
const commits = values.compare;
const chosen = positionals.length === 0 ? Object.keys(all) : positionals;
const parts = new Map(chosen.flatMap((name) => (all[name] === undefined ? [] : [[name, all[name]] as const])));
const settings: Settings = {
  runs: count(values.runs),
  mebibytes: count(values.mebibytes),
  crowds: values.fifty ? [1, 5, 20, 50] : [1, 5, 20],
  alone: commits.length > 0,
};

if (values.help) console.log(usage);
else if (parts.size < chosen.length || (commits.length !== 0 && commits.length !== 2)) {
  console.error(usage);
  process.exitCode = 2;
} else if (commits.length === 2) process.exitCode = await inTurn(commits[0] ?? "", commits[1] ?? "");
else await beside();

async function beside(): Promise<void> {
  await using host = new BenchHost();
  const figures: FigureResult[] = [];
  for (const [name, make] of parts) figures.push(...(await measurePart(name, make, host, settings, tell)));
  const report = { at: new Date().toISOString(), commit: commit(), machine: machine(), runs: settings.runs, figures };
  console.log(`${reportTable(report)}\n\n${goalTable(report)}`);
  console.log(
    `${settings.runs === 1 ? "One run" : `Medians of ${settings.runs} runs`} in turn. Kept in:\n${keepReport(report, join(import.meta.dirname, "results")).join("\n")}`,
  );
}

/** Answers the exit status. */
async function inTurn(before: string, after: string): Promise<number> {
  const figures = await compareCommits([before, after], parts, settings);
  const worse = figures.filter(({ verdict }) => verdict === "worse");
  console.log(comparisonTable(figures));
  console.log(
    `\n${worse.length} of ${figures.length} figures are worse at ${after} than at ${before} (Mann-Whitney, p < 0.01, and more than 5 %).`,
  );
  return worse.length === 0 ? 0 : 1;
}

function tell(figure: FigureResult): void {
  const [husk] = figure.series;
  const goals = figure.goals.map((goal) => `${goalText(goal, figure)}: ${goal.met ? "met" : "missed"}`);
  console.error(`bench: ${figure.name}: ${[`${rounded(husk?.summary.median ?? Number.NaN)} ${figure.unit}`, ...goals].join("; ")}`);
}

function count(text: string): number {
  const number = Number(text);
  if (!Number.isSafeInteger(number) || number < 1) throw new Error(`expected a number of at least 1, got ${text}`);
  return number;
}

function commit(): string {
  const git = (...args: string[]): string =>
    execFileSync("git", args, { cwd: import.meta.dirname, encoding: "utf8", stdio: ["ignore", "pipe", "ignore"] }).trim();
  if (!existsSync(join(import.meta.dirname, "../.git"))) return "unknown";
  return `${git("rev-parse", "--short=12", "HEAD")}${git("status", "--porcelain", "--untracked-files=no") === "" ? "" : " with changes"}`;
}

function machine(): Record<string, string> {
  const processors = cpus();
  const firstLine = (program: string): string => execFileSync(program, ["--version"], { encoding: "utf8" }).split("\n")[0] ?? "";
  return {
    processors: `${processors.length} x ${processors[0]?.model ?? "unknown"}`,
    kernel: release(),
    node: process.version,
    qemu: firstLine("qemu-system-x86_64"),
    runc: firstLine("runc"),
  };
}
