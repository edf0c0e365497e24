/**
 * Prints what a journal of tests comes to: `node tools/report-tests.ts FILE`. First each test that failed, with where it stands and the beginning of
 * what it said; the last line is `N passed, N failed, N skipped`. A file of tests that could not be run at all counts as one that failed.
 */
import { type End, readJournal } from "./test-journal.ts";

/** Lines of a failure's message that are shown; the whole of it is where the test ran, further up. */
const shownLines = 12;

function failure({ file, name, messages }: End): string {
  const lines = messages.join("\n").split("\n");
  const said = lines.length > shownLines ? [...lines.slice(0, shownLines), `… and ${lines.length - shownLines} lines more`] : lines;
  return [`failed: ${file} > ${name}`, ...said.map((line) => `  ${line}`)].join("\n");
}

const [path] = process.argv.slice(2);
if (path === undefined) throw new Error("expected the journal's file");
const ends = readJournal(path);
for (const end of ends) if (end.status === "failed") console.log(failure(end));
const count = (status: End["status"]) => ends.filter((end) => end.status === status).length;
console.log(`${count("passed")} passed, ${count("failed")} failed, ${count("skipped")} skipped`);
