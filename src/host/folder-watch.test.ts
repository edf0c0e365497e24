import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { expect, onTestFinished, test } from "vitest";
import { FolderWatch } from "./folder-watch.ts";

function folder(): string {
  const path = mkdtempSync(join(tmpdir(), "husk-watch-"));
  onTestFinished(() => rmSync(path, { recursive: true, force: true }));
  return path;
}

const never = 2 ** 31 - 1;

test("what appears ends the wait, before it as well, and once", async () => {
  const path = folder();
  using watched = new FolderWatch(path, ["wanted"]);
  const { signal } = new AbortController();
  const next = watched.next(never, signal);
  writeFileSync(join(path, "wanted"), "");
  await next;
  let isOver = false;
  const after = watched.next(never, signal).then(() => (isOver = true));
  writeFileSync(join(path, "other"), "");
  using other = new FolderWatch(path, ["later"]);
  writeFileSync(join(path, "later"), "");
  await other.next(never, signal); // events come in order: that of "other" has come
  expect(isOver).toBe(false);
  writeFileSync(join(path, "wanted"), "again");
  await after;
});

test("an abort ends the wait, and so does its time", async () => {
  using watched = new FolderWatch(folder(), ["wanted"]);
  const stop = new AbortController();
  const next = watched.next(never, stop.signal);
  stop.abort();
  await next;
  await watched.next(never, stop.signal);
  await watched.next(1, new AbortController().signal);
});

test("a folder that cannot be watched is waited for in vain", async () => {
  using watched = new FolderWatch("/nonexistent", ["wanted"]);
  await watched.next(1, new AbortController().signal);
});
