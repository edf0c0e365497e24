/**
 * The benchmarks: `npm run bench`, or `node bench/main.ts [RUNS]`. Prints ratios, each of two things measured in turn in one run on one machine, and
 * keeps all figures in results/ as JSON. Absolute times say what machine it was; under emulation, they say little more.
 */
import { mkdirSync, writeFileSync } from "node:fs";
import { cpus } from "node:os";
import { join } from "node:path";
import { bareMachine } from "./bare-machine.ts";
import { BenchHost } from "./bench-host.ts";
import { type GuestMemory, guestMemory } from "./guest-memory.ts";
import { time } from "./program.ts";
import { interleave, type Summary } from "./samples.ts";
import { table } from "./table.ts";

interface Comparison {
  readonly what: string;
  readonly husk: Summary;
  readonly beside: string;
  readonly other: Summary;
  readonly ratio: number;
  /** The ratio that husk is to stay below. */
  readonly budget: number | undefined;
}

const runs = Number(process.argv[2] ?? 10);
if (!Number.isSafeInteger(runs) || runs < 1) throw new Error(`expected a number of runs, got ${process.argv[2]}`);

await using host = new BenchHost();
const comparisons: Comparison[] = [];
const memory: Record<string, GuestMemory> = {};

/** Measures husk and something beside it in turn, and notes the ratio. */
async function compare(
  what: string,
  husk: () => Promise<number>,
  beside: string,
  other: () => Promise<number>,
  budget?: number,
): Promise<void> {
  const measured = await interleave(runs, { husk, other });
  const ratio = measured.husk.medianMs / measured.other.medianMs;
  comparisons.push({ what, husk: measured.husk, beside, other: measured.other, ratio, budget });
  console.error(`bench: ${what}: ${ratio.toFixed(2)}`);
}

for (const [flavour, budget] of [
  ["own", 1.3],
  ["debian", 1.2],
] as const) {
  await host.setProgram(["/bin/sleep", "1000000"]);
  const running = await host.detach("husk", flavour);
  const bare = bareMachine(join(host.folder, "husk"), host.folder);
  await host.husk(flavour, ["delete", "--force", running]);
  await host.setProgram(["/bin/echo", "ready"]);
  const boot = async (): Promise<number> =>
    (await host.husk(flavour, ["run", "--bundle", host.bundle, host.nextId()], { until: "ready" })).firstOutputMs;
  const floor = async (): Promise<number> => (await time(bare.program, bare.args, { until: "ready" })).firstOutputMs;
  await compare(`cold boot to first output, ${flavour} kernel`, boot, "bare QEMU, same kernel and machine", floor, budget);
  memory[flavour] = await guestMemory(host, flavour, mebibytesGiven(bare.args));
}

await host.setProgram(["/bin/sleep", "1000000"]);
const [inHusk, inRunc] = [await host.detach("husk"), await host.detach("runc")];
const ended = async (timing: ReturnType<typeof time>): Promise<number> => (await timing).endMs;
const bareNode = (): Promise<number> => ended(time(process.execPath, ["-e", "0"]));
await compare(
  "exec of true",
  () => ended(host.husk("own", ["exec", inHusk, "/bin/true"])),
  "runc exec",
  () => ended(host.runc(["exec", inRunc, "/bin/true"])),
);
await compare("state", () => ended(host.husk("own", ["state", inHusk])), "node -e 0", bareNode);
await compare("list", () => ended(host.husk("own", ["list"])), "node -e 0", bareNode);
await host.setProgram(["/bin/true"]);
const run = (): string[] => ["run", "--bundle", host.bundle, host.nextId()];
await compare(
  "run of true, booted, own kernel",
  () => ended(host.husk("own", run())),
  "runc run",
  () => ended(host.runc(run())),
);
await ended(host.husk("own", run(), {}, true)); // the first makes the template
await compare(
  "run of true from a template, a folder, own kernel",
  () => ended(host.husk("own", run(), {}, true)),
  "runc run",
  () => ended(host.runc(run())),
  6,
);

const ms = ({ medianMs, minMs, maxMs }: Summary): string => `${medianMs.toFixed(0)} (${minMs.toFixed(0)}-${maxMs.toFixed(0)})`;
console.log(
  table(
    ["what", "husk, ms", "beside it", "ms", "ratio", "budget"],
    comparisons.map(({ what, husk, beside, other, ratio, budget }) => [
      what,
      ms(husk),
      beside,
      ms(other),
      ratio.toFixed(2),
      budget?.toFixed(1) ?? "",
    ]),
  ),
);
console.log(`\nMedian of ${runs} runs in turn, the fastest and the slowest in parentheses.\n`);
console.log(
  table(
    ["guest memory, MiB", "given", "kernel sees", "free for programs", "taken", "of it after boot", "agent's file"],
    Object.entries(memory).map(([flavour, m]) => [
      flavour,
      ...[m.givenMiB, m.totalMiB, m.availableMiB, m.givenMiB - m.availableMiB, m.totalMiB - m.availableMiB, m.agentFileMiB].map((mib) =>
        mib.toFixed(1),
      ),
    ]),
  ),
);

const results = join(import.meta.dirname, "results");
mkdirSync(results, { recursive: true });
const now = new Date().toISOString();
const file = join(results, `${now.replaceAll(":", "-")}.json`);
writeFileSync(file, `${JSON.stringify({ at: now, processors: cpus().map(({ model }) => model), runs, comparisons, memory }, null, 2)}\n`);
console.log(`\nKept in ${file}`);

/** The memory in a QEMU command line's -m, in MiB. */
function mebibytesGiven(args: readonly string[]): number {
  const found = /^(\d+)M$/.exec(args[args.indexOf("-m") + 1] ?? "")?.[1];
  if (found === undefined) throw new Error("expected -m with a number of mebibytes in QEMU's command line");
  return Number(found);
}
