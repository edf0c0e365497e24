/**
 * Prints what a report of vitest's JSON reporter comes to: `node tools/report-tests.ts FILE`. First each test that failed, with where it stands and the
 * beginning of what it said; the last line is `N passed, N failed, N skipped`.
 * A file of tests that could not be run at all counts as one that failed.
 */
import { readFileSync } from "node:fs";
import { relative } from "node:path";
import { stripVTControlCharacters } from "node:util";

interface Assertion {
  readonly status: string;
  readonly fullName: string;
  readonly failureMessages: readonly string[] | null;
}

interface File {
  readonly name: string;
  readonly status: string;
  readonly message: string;
  readonly assertionResults: readonly Assertion[];
}

interface Report {
  readonly numPassedTests: number;
  readonly numFailedTests: number;
  readonly numPendingTests: number;
  readonly numTodoTests: number;
  readonly testResults: readonly File[];
}

/** Lines of a failure's message that are shown; the whole of it is where the test ran, further up. */
const shownLines = 12;

function failure(file: File, name: string, message: string): string {
  const lines = stripVTControlCharacters(message).split("\n");
  const said = lines.length > shownLines ? [...lines.slice(0, shownLines), `… and ${lines.length - shownLines} lines more`] : lines;
  return [`failed: ${relative(process.cwd(), file.name)} > ${name}`, ...said.map((line) => `  ${line}`)].join("\n");
}

const [path] = process.argv.slice(2);
if (path === undefined) throw new Error("expected the report's file");
const report = JSON.parse(readFileSync(path, "utf8")) as Report;
const notRun = report.testResults.filter(({ status, assertionResults }) => status === "failed" && assertionResults.length === 0);

for (const file of notRun) console.log(failure(file, "(the file could not be run)", file.message));
for (const file of report.testResults) {
  for (const { status, fullName, failureMessages } of file.assertionResults) {
    if (status === "failed") console.log(failure(file, fullName, (failureMessages ?? []).join("\n")));
  }
}
console.log(
  `${report.numPassedTests} passed, ${report.numFailedTests + notRun.length} failed, ${report.numPendingTests + report.numTodoTests} skipped`,
);
