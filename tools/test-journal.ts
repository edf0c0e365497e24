/**
 * A journal of tests: what became of each, written down as it ends, so that a run that is stopped, or a machine that dies beneath it, takes nothing
 * with it that was known. As a reporter of vitest (`--reporter=./tools/test-journal.ts`) it appends to the file that HUSK_TEST_JOURNAL names, a line
 * of JSON for each end; {@link readJournal} puts the journals of several runs of the same tests together.
 */
import { appendFileSync, readFileSync } from "node:fs";
import { relative } from "node:path";
import { stripVTControlCharacters } from "node:util";
import type { Reporter, TestCase, TestModule } from "vitest/node";

/**
 * What became of a test: vitest's ID of it, which is the same in each run of the same files, where it stands (relative to the working directory), its
 * full name, and what it said where it failed.
 */
export interface End {
  readonly id: string;
  readonly file: string;
  readonly name: string;
  readonly status: "passed" | "failed" | "skipped";
  readonly messages: readonly string[];
}

interface Failure {
  readonly message: string;
  readonly stack?: string | undefined;
}

/** Reads a journal: the end of each test, where a pass of whichever run counts, and then a failure. */
export function readJournal(path: string): readonly End[] {
  const ranks = ["skipped", "failed", "passed"];
  const ends = new Map<string, End>();
  for (const line of readFileSync(path, "utf8").split("\n")) {
    if (line === "") continue;
    const end = JSON.parse(line) as End;
    const known = ends.get(end.id);
    if (known === undefined || ranks.indexOf(end.status) >= ranks.indexOf(known.status)) ends.set(end.id, end);
  }
  return [...ends.values()];
}

/** The reporter, as vitest loads one. */
export default class TestJournal implements Reporter {
  readonly #path = process.env["HUSK_TEST_JOURNAL"];

  onTestCaseResult(test: TestCase): void {
    const { state: status, errors } = test.result();
    if (status !== "pending") this.#append({ id: test.id, file: test.module.moduleId, name: test.fullName, status }, errors);
  }

  /** A file whose tests could not be run at all, or that failed beside them. */
  onTestModuleEnd(module: TestModule): void {
    this.#appendFailure({ id: module.id, file: module.moduleId, name: "(the file)" }, module.errors());
  }

  onTestRunEnd(_modules: readonly TestModule[], errors: readonly Failure[]): void {
    this.#appendFailure({ id: "", file: process.cwd(), name: "(beside the tests)" }, errors);
  }

  #appendFailure(what: Pick<End, "id" | "file" | "name">, errors: readonly Failure[]): void {
    if (errors.length > 0) this.#append({ ...what, status: "failed" }, errors);
  }

  #append(what: Omit<End, "messages">, errors: readonly Failure[] = []): void {
    if (this.#path === undefined) throw new Error("HUSK_TEST_JOURNAL names no file: set it to where the journal is to be");
    const messages = errors.map(({ stack, message }) => stripVTControlCharacters(stack ?? message));
    const end: End = { ...what, file: relative(process.cwd(), what.file), messages };
    appendFileSync(this.#path, `${JSON.stringify(end)}\n`);
  }
}
