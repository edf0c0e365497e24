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

test("the first run leaves a cache, which the next ones use and add to, until it is of enough runs", () => {
  program(`
    const rare = () => ${JSON.stringify("long ".repeat(1000))}.length + [1, 2, 3].map((each) => each * 2).length;
    console.log(process.argv[2] === "rare" ? rare() : "usual");
  `);
  expect(run("usual")).toBe("usual\n");
  const first = cacheOf();
  expect(run("rare")).toBe("5003\n");
  const more = cacheOf();
  expect(more.bytes.length, "what the second run needed is in it").toBeGreaterThan(first.bytes.length + 5000);
  for (let runs = 3; runs <= 8; runs++) run("usual");
  const last = cacheOf();
  expect(last.bytes.length, "and stays").toBeGreaterThanOrEqual(more.bytes.length);
  run("rare");
  expect(cacheOf().inode).toBe(last.inode);
});

test("a cache of another program is replaced", () => {
  run();
  const { bytes } = cacheOf();
  program('console.log("another, and longer");');
  expect(run()).toBe("another, and longer\n");
  expect(cacheOf().bytes.equals(bytes)).toBe(false);
});

test("a cache of another program of the same length is not used, and replaced", () => {
  program('console.log("one");');
  expect(run()).toBe("one\n");
  program('console.log("two");');
  expect(run()).toBe("two\n");
  expect(cacheOf().bytes.at(-1)).toBe(1);
  expect(run()).toBe("two\n");
  expect(cacheOf().bytes.at(-1)).toBe(2);
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
  expect(cacheOf().bytes.at(-1)).toBe(1);
  expect(run()).toBe("true\n");
  expect(cacheOf().bytes.at(-1), "it was used, and added to").toBe(2);
});

test("the program's status is its own", () => {
  expect(() => run("fail")).toThrow(expect.objectContaining({ status: 3 }));
});
