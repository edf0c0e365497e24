import { existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, expect, test } from "vitest";
import { noteInLedger, readLedger } from "../host/ledger.ts";
import { claimRunFolder, removeRunFolder, runFolder } from "./run-folder.ts";
import { foundHome, SandboxHome } from "./sandbox-home.ts";

let root: string;
beforeEach(() => {
  root = mkdtempSync(join(tmpdir(), "husk-home-"));
});
afterEach(() => rmSync(root, { recursive: true }));

test("a sandbox's files outlive the container that it was launched for", () => {
  const first = claimRunFolder(root, "first", foundHome);
  const home = new SandboxHome(first);
  writeFileSync(first.console, "booted\n");
  noteInLedger(home.ledger, { kind: "file", path: "/a" });
  const second = claimRunFolder(root, "second", (path) => home.furnish(path));
  home.add(second);
  noteInLedger(home.ledger, { kind: "file", path: "/b" });

  home.leave(first);
  expect(existsSync(first.ledger)).toBe(false); // whoever removes the first gives nothing of the second's back
  removeRunFolder(first);
  noteInLedger(home.ledger, { kind: "file", path: "/c" });
  expect(readLedger(runFolder(root, "second").ledger).map((entry) => "path" in entry && entry.path)).toEqual(["/a", "/b", "/c"]);
  expect(readFileSync(second.console, "utf8")).toBe("booted\n");
});
