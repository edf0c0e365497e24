import { execFileSync } from "node:child_process";
import { mkdtempSync, readFileSync, rmSync, statSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { buildSync } from "esbuild";
import { afterEach, beforeEach, expect, test } from "vitest";
import { leaveCodeCache } from "./code-cache.ts";

let folder: string;
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), "husk-loader-"));
  buildSync({
    entryPoints: [join(import.meta.dirname, "loader.ts")],
    bundle: true,
    platform: "node",
    format: "cjs",
    outfile: join(folder, "tool.js"),
  });
  program(
    'console.log(process.argv.slice(2).join(), require("node:path").basename(__filename)); if (process.argv[2] === "fail") process.exit(3);',
  );
});
afterEach(() => rmSync(folder, { recursive: true }));

function program(text: string): void {
  writeFileSync(join(folder, "tool.program.js"), text);
}

function run(...words: string[]): string {
  return execFileSync(process.execPath, [join(folder, "tool.js"), ...words], { encoding: "utf8", stdio: ["ignore", "pipe", "pipe"] });
}

const cacheOf = (): { readonly inode: number; readonly bytes: Buffer } => ({
  inode: statSync(join(folder, "tool.cache")).ino,
  bytes: readFileSync(join(folder, "tool.cache")),
});

test("the first run leaves a cache, which the next one uses", () => {
  expect(run("a", "b")).toBe("a,b tool.js\n");
  const { inode } = cacheOf();
  expect(run("c")).toBe("c tool.js\n");
  expect(cacheOf().inode).toBe(inode);
});

test("a cache of another program is replaced", () => {
  run();
  const { bytes } = cacheOf();
  program('console.log("another, and longer");');
  expect(run()).toBe("another, and longer\n");
  expect(cacheOf().bytes.equals(bytes)).toBe(false);
});

test("a cache that is none is replaced", () => {
  writeFileSync(join(folder, "tool.cache"), "nonsense");
  expect(run("a")).toBe("a tool.js\n");
  expect(cacheOf().bytes.length).toBeGreaterThan(100);
});

test("a program that changes V8's flags leaves the cache before, and the next one can use it", () => {
  program(`
    process.emit(${JSON.stringify(leaveCodeCache)});
    console.log(require("node:fs").existsSync(__filename.replace(".js", ".cache")));
    require("node:v8").setFlagsFromString("--optimize-for-size");
  `);
  expect(run()).toBe("true\n");
  const { inode } = cacheOf();
  expect(run()).toBe("true\n");
  expect(cacheOf().inode).toBe(inode);
});

test("the program's status is its own", () => {
  expect(() => run("fail")).toThrow(expect.objectContaining({ status: 3 }));
});
