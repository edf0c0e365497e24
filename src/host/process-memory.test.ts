import { mkdirSync, mkdtempSync, rmSync, symlinkSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { expect, test } from "vitest";
import { listProcesses, parseRollup, readProcessMemory, withDescendants } from "./process-memory.ts";

const rollup = `55d0c0a4e000-7ffd6a5d2000 ---p 00000000 00:00 0                          [rollup]
Rss:               41000 kB
Pss:               20480 kB
Pss_Dirty:          9000 kB
Pss_Anon:          10240 kB
Pss_File:           8192 kB
Pss_Shmem:          2048 kB
`;

test("the kernel's words, in bytes", () => {
  expect(parseRollup(rollup)).toEqual({ pss: 20_971_520, anonymous: 10_485_760, file: 8_388_608, shared: 2_097_152 });
  expect(parseRollup("")).toBeUndefined();
});

test("this process takes something, and one that is not there takes nothing", () => {
  const own = readProcessMemory(process.pid);
  expect(own?.pss).toBeGreaterThan(1024 ** 2);
  // Each of the kernel's figures is rounded.
  expect(Math.abs((own?.pss ?? 0) - (own?.anonymous ?? 0) - (own?.file ?? 0) - (own?.shared ?? 0))).toBeLessThanOrEqual(4096);
  expect(readProcessMemory(2 ** 30)).toBeUndefined();
});

test("processes are found with their parents, whatever their numbers are, and those below one of them", () => {
  const proc = mkdtempSync(join(tmpdir(), "husk-proc-"));
  try {
    for (const [pid, parent, words, namespace] of [
      [10, 1, "supervisor", "host"],
      [3, 10, "helper\0sandbox", "own"],
      [2, 3, "virtiofsd", "own"],
      [11, 1, "other", "host"],
      [20, 1, "qemu", "host"], // a zygote, and its copies in this sandbox and in another one
      [21, 20, "qemu", "own"],
      [22, 20, "qemu", "another"],
      [30, 1, "/lib/node --flag shim.js serve -id a\0\0", "host"], // it has said so of itself
      [31, 1, "/my programs/node\0x y", "host"],
    ] as const) {
      mkdirSync(join(proc, String(pid), "ns"), { recursive: true });
      symlinkSync(namespace, join(proc, String(pid), "ns", "pid"));
      writeFileSync(join(proc, String(pid), "status"), `Name:\tx\nPPid:\t${parent}\n`);
      writeFileSync(join(proc, String(pid), "cmdline"), `${words}\0`);
    }
    symlinkSync("/lib/husk-helper", join(proc, "11", "exe")); // a container's words, and husk's program
    symlinkSync("/lib/node", join(proc, "30", "exe"));
    symlinkSync("/my programs/node", join(proc, "31", "exe"));
    mkdirSync(join(proc, "12")); // it ends while it is looked at
    mkdirSync(join(proc, "self"));
    const processes = listProcesses(proc);
    expect(processes.map(({ pid }) => pid).toSorted((a, b) => a - b)).toEqual([2, 3, 10, 11, 20, 21, 22, 30, 31]);
    expect(withDescendants(10, processes)).toEqual([
      { pid: 10, parent: 1, words: ["supervisor"], pidNamespace: "host" },
      { pid: 3, parent: 10, words: ["helper", "sandbox"], pidNamespace: "own" },
      { pid: 2, parent: 3, words: ["virtiofsd"], pidNamespace: "own" },
      { pid: 21, parent: 20, words: ["qemu"], pidNamespace: "own" },
    ]);
    expect(processes.find(({ pid }) => pid === 11)?.words).toEqual(["husk-helper", "stand-in"]);
    expect(processes.find(({ pid }) => pid === 30)?.words).toEqual(["/lib/node", "--flag", "shim.js", "serve", "-id", "a"]);
    expect(processes.find(({ pid }) => pid === 31)?.words).toEqual(["/my programs/node", "x y"]);
    expect(withDescendants(99, processes)).toEqual([]);
  } finally {
    rmSync(proc, { recursive: true });
  }
});

test("a process of another user's is told of", () => {
  const proc = mkdtempSync(join(tmpdir(), "husk-proc-"));
  try {
    mkdirSync(join(proc, "5", "smaps_rollup"), { recursive: true }); // cannot be read
    expect(() => readProcessMemory(5, proc)).toThrow("cannot read what process 5 takes of memory");
  } finally {
    rmSync(proc, { recursive: true });
  }
});
