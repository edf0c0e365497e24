import { existsSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, statSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { claimRunFolder, defaultRoot, listIds, listLeftovers, removeRunFolder, runFolder } from "./run-folder.ts";

let root: string;
beforeEach(() => {
  root = join(mkdtempSync(join(tmpdir(), "husk-root-")), "husk");
});
afterEach(() => rmSync(join(root, ".."), { recursive: true }));

const fill = (path: string): void => writeFileSync(join(path, "state.json"), "{}");

describe("ids", () => {
  it.each(["a", "A.b-c_d+e", "...", ".hidden", "-x", "0".repeat(255)])("takes %s", (id) => {
    expect(runFolder("/run/husk", id).path).toBe(`/run/husk/${id}`);
  });

  it.each(["a/b", "..", ".", "../x", "a b", "a\n", "~new-1", "ü", "a\0"])("refuses %j", (id) => {
    expect(() => runFolder("/run/husk", id)).toThrow(`invalid container ID format: ${JSON.stringify(id)}`);
  });

  it("refuses an empty one and one that no file name could hold", () => {
    expect(() => runFolder("/run/husk", "")).toThrow("container id cannot be empty");
    expect(() => runFolder("/run/husk", "a".repeat(256))).toThrow("container id of 256 characters: at most 255 are possible");
  });
});

describe("defaultRoot", () => {
  it("honours XDG_RUNTIME_DIR for users other than root", () => {
    expect(defaultRoot(0, "/run/user/0")).toBe("/run/husk");
    expect(defaultRoot(1000, "/run/user/1000")).toBe("/run/user/1000/husk");
    expect(defaultRoot(1000, undefined)).toBe("/run/husk");
  });
});

describe("claiming", () => {
  it("makes the folder with its first files, for its owner alone", () => {
    const folder = claimRunFolder(root, "box", fill);
    expect(statSync(folder.path).mode & 0o7777).toBe(0o700);
    expect(readFileSync(folder.state, "utf8")).toBe("{}");
    expect(listIds(root)).toEqual(["box"]);
    expect(listLeftovers(root)).toEqual([]);
  });

  it("refuses an id that is taken, and leaves its owner's files alone", () => {
    const folder = claimRunFolder(root, "box", fill);
    expect(() => claimRunFolder(root, "box", (path) => writeFileSync(join(path, "state.json"), "other"))).toThrow(
      `container "box" already exists`,
    );
    expect(readFileSync(folder.state, "utf8")).toBe("{}");
    expect(listLeftovers(root)).toEqual([]);
  });

  it("refuses an id whose place is taken by a file", () => {
    mkdirSync(root, { recursive: true });
    writeFileSync(join(root, "box"), "");
    expect(() => claimRunFolder(root, "box", fill)).toThrow(`container "box" already exists`);
  });

  it("leaves nothing where the first files cannot be written", () => {
    const full = (): void => {
      throw new Error("no space left on device");
    };
    expect(() => claimRunFolder(root, "box", full)).toThrow(`cannot make the run folder ${root}/box`);
    expect(readdirSync(root)).toEqual([]);
  });
});

describe("removing", () => {
  it("removes everything, gives the id free, and may be repeated", () => {
    const folder = claimRunFolder(root, "box", fill);
    mkdirSync(join(folder.path, "deep", "er"), { recursive: true });
    removeRunFolder(folder);
    expect(readdirSync(root)).toEqual([]);
    removeRunFolder(folder);
    claimRunFolder(root, "box", fill);
  });

  it("works for the longest id", () => {
    const folder = claimRunFolder(root, "a".repeat(255), fill);
    removeRunFolder(folder);
    expect(existsSync(folder.path)).toBe(false);
    expect(readdirSync(root)).toEqual([]);
  });
});

describe("listing", () => {
  it("knows no containers where there is no root", () => {
    expect(listIds(join(root, "none"))).toEqual([]);
  });

  it("tells containers from what an interrupted claim or removal left", () => {
    claimRunFolder(root, "b", fill);
    claimRunFolder(root, "a", fill);
    mkdirSync(join(root, "~old-1-2-c"));
    writeFileSync(join(root, "stray-file"), "");
    expect(listIds(root)).toEqual(["a", "b"]);
    expect(listLeftovers(root)).toEqual([join(root, "~old-1-2-c")]);
  });
});
