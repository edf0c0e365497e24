import { execFileSync } from "node:child_process";
import { chmodSync, mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import path from "node:path";
import { afterEach, beforeEach, expect, test } from "vitest";
import { hostFiles } from "./files.ts";

let folder: string;
let file: string;
beforeEach(() => {
  folder = mkdtempSync(path.join(tmpdir(), "husk-config-"));
  file = path.join(folder, "config.toml");
});
afterEach(() => rmSync(folder, { recursive: true }));

test("reads a file, and takes a missing file or folder for none", () => {
  expect(hostFiles.readText(file)).toBeUndefined();
  expect(hostFiles.list(path.join(folder, "config.d"))).toEqual([]);
  writeFileSync(file, "x = 1\n", { mode: 0o644 });
  expect(hostFiles.readText(file)).toBe("x = 1\n");
  expect(hostFiles.list(folder)).toEqual(["config.toml"]);
});

test("refuses what is no file, too large, or open to anyone's pen, and tells why a folder cannot be read", () => {
  mkdirSync(file);
  expect(() => hostFiles.readText(file)).toThrow(`${file} is not a regular file`);
  rmSync(file, { recursive: true });
  execFileSync("mkfifo", [file]);
  expect(() => hostFiles.readText(file)).toThrow(`${file} is not a regular file`);
  rmSync(file);
  writeFileSync(file, Buffer.alloc(1024 * 1024 + 1));
  expect(() => hostFiles.readText(file)).toThrow(`${file} is larger than 1048576 bytes`);
  writeFileSync(file, "");
  chmodSync(file, 0o666);
  expect(() => hostFiles.readText(file)).toThrow(
    expect.objectContaining({ message: `${file} can be written by anyone`, hint: `chmod o-w ${file}` }),
  );
  expect(() => hostFiles.list(file)).toThrow(`cannot read ${file}`);
});
