import { mkdirSync, mkdtempSync, readdirSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { explain } from "../errors.ts";
import { identify } from "../host/process-identity.ts";
import { type ContainerRecord, claimContainer, listRecords, readRecord, supervisorDied, writeRecord } from "./record.ts";
import { removeRunFolder, runFolder } from "./run-folder.ts";

let root: string;
beforeEach(() => {
  root = mkdtempSync(join(tmpdir(), "husk-record-"));
});
afterEach(() => rmSync(root, { recursive: true }));

const record: ContainerRecord = {
  version: 1,
  ociVersion: "1.2.1",
  id: "box",
  status: "running",
  pid: 4711,
  pidStart: 99,
  supervisor: { pid: 4700, start: 98 },
  bundle: "/b",
  rootfs: "/b/rootfs",
  created: "2026-01-01T00:00:00.000Z",
  owner: "root",
  annotations: { "com.example.a": "b", __proto__x: "c" },
  terminal: true,
  foreground: false,
  poststop: [{ path: "/bin/hook", args: ["hook", "-x"], timeout: 3 }],
};
const alive = (): boolean => true;
const dead = (): boolean => false;

describe("writing and reading", () => {
  it("gives back what was written, and replaces it as a whole", () => {
    const folder = claimContainer(root, { ...record, status: "creating" });
    expect(readRecord(root, "box", alive)).toEqual({ ...record, status: "creating" });
    const ended: ContainerRecord = { ...record, status: "stopped", pid: 0, pidStart: 0, exit: { code: 3, at: "2026-01-02T00:00:00Z" } };
    writeRecord(folder, ended);
    expect(readRecord(root, "box", alive)).toEqual(ended);
    expect(readdirSync(folder.path)).toEqual(["state.json"]);
  });

  it("keeps an annotation that is named __proto__", () => {
    const annotations = JSON.parse(`{"__proto__":"x"}`) as Record<string, string>;
    claimContainer(root, { ...record, annotations });
    expect(Object.entries(readRecord(root, "box", alive).annotations)).toEqual([["__proto__", "x"]]);
  });
});

describe("a supervisor that is gone", () => {
  it.each(["creating", "created", "running", "paused"] as const)("makes a %s container one that was killed", (status) => {
    claimContainer(root, { ...record, status });
    expect(readRecord(root, "box", dead)).toMatchObject({
      status: "stopped",
      pid: 0,
      pidStart: 0,
      exit: { signal: 9, reason: supervisorDied },
    });
  });

  it("changes nothing about one that had stopped before", () => {
    const exit = { code: 0, at: "2026-01-02T00:00:00Z" };
    claimContainer(root, { ...record, status: "stopped", pid: 0, pidStart: 0, exit });
    expect(readRecord(root, "box", dead)).toMatchObject({ status: "stopped", exit });
  });

  it("is told by its start time where another process has its PID", () => {
    const own = identify(process.pid);
    if (own === undefined) throw new Error("this process must be found");
    const folder = claimContainer(root, { ...record, supervisor: own });
    expect(readRecord(root, "box").status).toBe("running");
    writeRecord(folder, { ...record, supervisor: { pid: own.pid, start: own.start - 1 } });
    expect(readRecord(root, "box").status).toBe("stopped");
  });
});

describe("records that cannot be read", () => {
  it("says that an unknown container does not exist", () => {
    expect(() => readRecord(root, "box")).toThrow(`container "box" does not exist`);
    expect(() => readRecord(join(root, "none"), "box")).toThrow(`container "box" does not exist`);
    removeRunFolder(claimContainer(root, record));
    expect(() => readRecord(root, "box")).toThrow(`container "box" does not exist`);
  });

  const problems: [text: string, problem: string][] = [
    ["{", "Expected property name or '}' in JSON"],
    ["[]", "expected an object, got an empty list"],
    [JSON.stringify({ ...record, version: 2 }), "version: expected 1, got 2"],
    [JSON.stringify({ ...record, id: "other" }), `id: expected "box", got "other"`],
    [
      JSON.stringify({ ...record, status: "flying" }),
      `status: expected one of "creating", "created", "running", "paused", "stopped", got "flying"`,
    ],
    [JSON.stringify({ ...record, pid: -1 }), "pid: expected a whole number of at least 0, got -1"],
    [JSON.stringify({ ...record, supervisor: "x" }), `supervisor: expected an object, got "x"`],
    [JSON.stringify({ ...record, annotations: { a: 1 } }), "annotations.a: expected a string, got 1"],
    [JSON.stringify({ ...record, poststop: [{ path: "hook" }] }), `poststop[0].path: expected an absolute path, got "hook"`],
    [JSON.stringify({ ...record, exit: { code: "x", at: "" } }), `exit.code: expected a whole number of at least 0, got "x"`],
  ];
  it.each(problems)("names what is wrong with %s", (text, problem) => {
    const folder = claimContainer(root, record);
    writeFileSync(folder.state, text);
    const error = (() => {
      try {
        return readRecord(root, "box", alive);
      } catch (caught) {
        return caught;
      }
    })();
    expect(error).toMatchObject({ code: "internal" });
    expect(explain(error)).toContain(`cannot be read: ${problem}`);
    expect(explain(error)).toContain("(`husk delete --force box` removes what is left of it)");
  });

  it("does not hide the others in a listing", () => {
    claimContainer(root, record);
    claimContainer(root, { ...record, id: "a" });
    writeFileSync(runFolder(root, "box").state, "");
    mkdirSync(join(root, "empty"));
    const { records, errors } = listRecords(root);
    expect(records.map(({ id }) => id)).toEqual(["a"]);
    expect(errors.map(({ message }) => message)).toEqual([
      `the state of container "box" in ${root}/box/state.json cannot be read`,
      `the state of container "empty" in ${root}/empty/state.json cannot be read`,
    ]);
  });
});
