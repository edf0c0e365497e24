/**
 * Prints the counts in a report of vitest's JSON reporter, as `N passed, N failed, N skipped`: `node tools/count-tests.ts FILE`.
 * A file of tests that could not be run at all counts as one that failed.
 */
import { readFileSync } from "node:fs";

interface Report {
  readonly numPassedTests: number;
  readonly numFailedTests: number;
  readonly numPendingTests: number;
  readonly numTodoTests: number;
  readonly testResults: readonly { readonly status: string; readonly assertionResults: readonly unknown[] }[];
}

const [file] = process.argv.slice(2);
if (file === undefined) throw new Error("expected the report's file");
const report = JSON.parse(readFileSync(file, "utf8")) as Report;
const notRun = report.testResults.filter(({ status, assertionResults }) => status === "failed" && assertionResults.length === 0).length;
const failed = report.numFailedTests + notRun;
console.log(`${report.numPassedTests} passed, ${failed} failed, ${report.numPendingTests + report.numTodoTests} skipped`);
