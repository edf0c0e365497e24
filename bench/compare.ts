/**
 * Two commits against each other, each in a git worktree of its own that is made for it and removed afterwards, measured by the benchmarks of this checkout.
 * A figure is worse where the Mann-Whitney test says that chance alone would tell the two apart so in less than 1 of 100 cases, and the median is more than 5 %
 * worse (statistics.ts).
 */
import { spawnSync } from "node:child_process";
import { cpSync, existsSync, mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join, resolve } from "node:path";
import { BenchHost } from "./bench-host.ts";
import { type PartMaker, rounded, type Settings } from "./figure.ts";
import { type Compared, comparePart } from "./measure.ts";
import { table } from "./table.ts";

const repository = resolve(import.meta.dirname, "..");

/** Compares, prints, and answers every figure. */
export async function compareCommits(
  commits: readonly [string, string],
  parts: ReadonlyMap<string, PartMaker>,
  settings: Settings,
): Promise<Compared[]> {
  using before = Worktree.of(commits[0]);
  using after = Worktree.of(commits[1]);
  await using first = new BenchHost(before.path);
  await using second = new BenchHost(after.path);
  const results: Compared[] = [];
  for (const make of parts.values()) {
    results.push(...(await comparePart(make, [first, second], settings, (figure) => console.error(`bench: ${line(figure).join("  ")}`))));
  }
  return results;
}

/** The figures for a terminal. */
export function comparisonTable(figures: readonly Compared[]): string {
  return table(["figure", "before", "after", "ratio", "by chance", ""], figures.map(line));
}

function line({ name, kind, before, after, ratio, probability, verdict }: Compared): string[] {
  const median = (value: number): string => `${rounded(value)} ${kind.unit}`;
  return [name, median(before.median), median(after.median), ratio.toFixed(2), probability.toFixed(4), verdict];
}

/** A commit, checked out and built. */
class Worktree implements Disposable {
  readonly path: string;
  readonly #parent: string;

  static of(commit: string): Worktree {
    const worktree = new Worktree(mkdtempSync(join(tmpdir(), "husk-compare.")));
    try {
      worktree.#build(commit);
      return worktree;
    } catch (error) {
      worktree[Symbol.dispose]();
      throw error;
    }
  }

  private constructor(parent: string) {
    this.#parent = parent;
    this.path = join(parent, "checkout");
  }

  #build(commit: string): void {
    run(repository, "git", ["worktree", "add", "--quiet", "--detach", this.path, commit]);
    // What this checkout has compiled need not be compiled again.
    const target = "guest-agent/target";
    if (existsSync(join(repository, target))) {
      cpSync(join(repository, target), join(this.path, target), { recursive: true, preserveTimestamps: true, verbatimSymlinks: true });
    }
    console.error(`bench: setting up ${commit}`);
    run(this.path, join(this.path, "tools/setup"), ["all"]);
  }

  [Symbol.dispose](): void {
    if (existsSync(this.path)) run(repository, "git", ["worktree", "remove", "--force", this.path]);
    rmSync(this.#parent, { recursive: true, force: true });
  }
}

function run(folder: string, program: string, args: readonly string[]): void {
  const { status, stderr, error } = spawnSync(program, args, { cwd: folder, stdio: ["ignore", "ignore", "pipe"], encoding: "utf8" });
  if (status !== 0) throw new Error(`${program} ${args.join(" ")} failed: ${error?.message ?? stderr.trim().split("\n").at(-1)}`);
}
