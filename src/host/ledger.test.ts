import { spawn } from "node:child_process";
import { once } from "node:events";
import { appendFileSync, existsSync, mkdirSync, mkdtempSync, readFileSync, rmdirSync, rmSync, symlinkSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { explain } from "../errors.ts";
import { removeCgroup } from "./cgroup-removal.ts";
import { findHierarchies } from "./cgroups.ts";
import { giveBack, type LedgerEntry, noteInLedger, readLedger, type TapEntry } from "./ledger.ts";

let work: string;
let ledger: string;
const noTaps = {
  detachTap: () => Promise.reject(new Error("no tap was expected")),
  unmount: () => Promise.reject(new Error("no mount was expected")),
};

beforeEach(() => {
  work = mkdtempSync(join(tmpdir(), "husk-ledger-"));
  ledger = join(work, "ledger.jsonl");
});
afterEach(() => rmSync(work, { recursive: true }));

describe("the file", () => {
  it("gives back what was noted, in order", () => {
    const entries: LedgerEntry[] = [
      { kind: "cgroup", path: "/sys/fs/cgroup/husk/a" },
      { kind: "tap", netns: "/run/netns/x", link: "eth0", tap: "husk0", owner: 1_879_048_193 },
      { kind: "tap", netns: "/run/netns/x", link: "eth0", tap: "husk1" },
      { kind: "file", path: "/run/a b" },
      { kind: "scope", unit: "husk-a.scope", description: "husk sandbox husk-a 01" },
    ];
    expect(readLedger(ledger)).toEqual([]);
    for (const entry of entries) noteInLedger(ledger, entry);
    expect(readLedger(ledger)).toEqual(entries);
  });

  it("leaves out a last line that was not written whole", () => {
    noteInLedger(ledger, { kind: "file", path: "/run/a" });
    appendFileSync(ledger, `{"kind":"file","pa`);
    expect(readLedger(ledger)).toEqual([{ kind: "file", path: "/run/a" }]);
  });

  it.each([
    "nonsense",
    "null",
    `{"kind":"moon","path":"/a"}`,
    `{"kind":"folder","path":"a/b"}`,
    `{"kind":"folder","path":"/run/husk/../../etc"}`,
    `{"kind":"folder","path":"/"}`,
    `{"kind":"tap","netns":"/n","link":"eth0"}`,
    `{"kind":"scope","unit":"husk-a.scope"}`,
  ])("refuses a line that none of ours can be: %s", (line) => {
    noteInLedger(ledger, { kind: "file", path: "/run/a" });
    appendFileSync(ledger, `${line}\n`);
    expect(() => readLedger(ledger)).toThrow(`the ledger ${ledger} is damaged at line 2`);
  });
});

describe("giveBack", () => {
  it("removes files and folders, follows no link out of them, and can be called again", async () => {
    const folder = join(work, "folder");
    const kept = join(work, "kept");
    mkdirSync(join(folder, "sub"), { recursive: true });
    mkdirSync(kept);
    writeFileSync(join(kept, "file"), "");
    symlinkSync(kept, join(folder, "link"));
    writeFileSync(join(work, "file"), "");
    const entries: LedgerEntry[] = [
      { kind: "folder", path: folder },
      { kind: "file", path: join(work, "file") },
      { kind: "cgroup", path: join(work, "never-made") },
    ];
    expect(await giveBack(entries, noTaps)).toEqual([]);
    expect(existsSync(folder)).toBe(false);
    expect(existsSync(join(work, "file"))).toBe(false);
    expect(existsSync(join(kept, "file"))).toBe(true);
    expect(await giveBack(entries, noTaps)).toEqual([]);
  });

  it("begins with what was taken last, goes on after a failure, and names what is left", async () => {
    const asked: string[] = [];
    const detachTap = ({ netns, link, tap }: TapEntry): Promise<void> => {
      asked.push(tap);
      return tap === "husk1" ? Promise.reject(new Error(`no way into ${netns} for ${link}`)) : Promise.resolve();
    };
    const tap = (name: string): LedgerEntry => ({ kind: "tap", netns: "/run/netns/x", link: "eth0", tap: name });
    const failures = await giveBack([tap("husk0"), tap("husk1"), tap("husk2")], { ...noTaps, detachTap });
    expect(asked).toEqual(["husk2", "husk1", "husk0"]);
    expect(failures.map(explain)).toEqual(["cannot give back the tap husk1 of eth0 in /run/netns/x: no way into /run/netns/x for eth0"]);
  });

  it("leaves a folder alone in which something is mounted", async () => {
    const failures = await giveBack([{ kind: "folder", path: "/proc" }], noTaps);
    expect(failures.map(explain)).toEqual(["cannot give back the folder /proc: /proc is a mount point"]);
  });
});

/** Where this process may make cgroups, one folder for each version: none without root, or in a container without its own hierarchy. */
const writable = findHierarchies(readFileSync("/proc/self/mountinfo", "utf8")).flatMap(({ mountPoint, version }) => {
  const probe = join(mountPoint, `husk-test-${process.pid}`);
  try {
    mkdirSync(probe);
    rmdirSync(probe);
    return [{ mountPoint, version }];
  } catch {
    return [];
  }
});
const hierarchies = [1, 2].flatMap((version) => writable.find((hierarchy) => hierarchy.version === version) ?? []);

describe.each(hierarchies)("removeCgroup, version $version", ({ mountPoint }) => {
  let cgroup: string;
  beforeEach(() => {
    cgroup = join(mountPoint, `husk-test-${process.pid}-${Math.random().toString(36).slice(2)}`);
    mkdirSync(cgroup);
    if (existsSync(join(cgroup, "cpuset.cpus"))) {
      for (const file of ["cpuset.cpus", "cpuset.mems"]) writeFileSync(join(cgroup, file), readFileSync(join(mountPoint, file)));
    }
  });
  afterEach(() => {
    if (existsSync(cgroup)) rmdirSync(cgroup);
  });

  it("waits for the last process to end", async () => {
    const child = spawn("sleep", ["0.3"]);
    writeFileSync(join(cgroup, "cgroup.procs"), String(child.pid));
    const exit = once(child, "exit");
    await removeCgroup(cgroup);
    expect(existsSync(cgroup)).toBe(false);
    expect(await exit).toEqual([0, null]);
  });

  it("kills what does not end", async () => {
    const child = spawn("sleep", ["60"]);
    writeFileSync(join(cgroup, "cgroup.procs"), String(child.pid));
    const exit = once(child, "exit");
    await removeCgroup(cgroup, 1000);
    expect(existsSync(cgroup)).toBe(false);
    expect(await exit).toEqual([null, "SIGKILL"]);
  });

  it("leaves one that holds cgroups of others", async () => {
    const other = join(cgroup, "other");
    mkdirSync(other);
    await removeCgroup(cgroup, 50);
    expect(existsSync(other)).toBe(true);
    rmdirSync(other);
  });

  it("takes one that is gone for done", async () => {
    rmdirSync(cgroup);
    await removeCgroup(cgroup, 50);
  });
});
