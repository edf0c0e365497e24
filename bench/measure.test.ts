import { expect, test } from "vitest";
import type { BenchHost } from "./bench-host.ts";
import type { Part, Settings } from "./figure.ts";
import { comparePart, measurePart } from "./measure.ts";

const settings: Settings = { runs: 10, crowds: [], mebibytes: 1, alone: false };

/** A host that is nothing but its name: the parts here make no use of it. */
function named(checkout: string): BenchHost {
  return { checkout } as BenchHost;
}

/** A part whose figure is `ms`, and a little more each time, and what it did. */
function partOf(ms: number, done: string[], name: string): Part {
  let count = 0;
  const kind = { name: "start", unit: "ms", better: "less", goals: [{ of: "runc", bound: 2 }] } as const;
  return {
    figures: [
      {
        ...kind,
        husk: () => {
          done.push(name);
          count += 1;
          return Promise.resolve(ms + count / 100);
        },
        beside: { runc: () => Promise.resolve(ms / 4) },
      },
    ],
    collect: () => Promise.resolve([{ kind: { ...kind, name: "memory" }, samples: new Map([["husk", [ms, ms]]]) }]),
    close: () => {
      done.push(`${name} closed`);
      return Promise.resolve();
    },
  };
}

test("a part's figures are measured beside others, and it is closed", async () => {
  const done: string[] = [];
  const told: string[] = [];
  const make = () => Promise.resolve(partOf(100, done, "husk"));
  const results = await measurePart("calls", make, named("/a"), { ...settings, runs: 2 }, ({ name }) => told.push(name));
  expect(results.map(({ name, part, goals }) => [part, name, goals.map(({ met }) => met)])).toEqual([
    ["calls", "start", [false]],
    ["calls", "memory", []],
  ]);
  expect(told).toEqual(["start", "memory"]);
  expect(done).toEqual(["husk", "husk", "husk", "husk closed"]);
});

test("two husks are measured in turn, and one that is clearly slower is worse", async () => {
  const done: string[] = [];
  const make = (host: BenchHost) => Promise.resolve(partOf(host.checkout === "/a" ? 100 : 130, done, host.checkout));
  const results = await comparePart(make, [named("/a"), named("/b")], settings, () => {});
  expect(results.map(({ name, verdict }) => [name, verdict])).toEqual([
    ["start", "worse"],
    ["memory", "same"], // four samples are too few to tell
  ]);
  expect(done.slice(0, 4)).toEqual(["/a", "/b", "/a", "/b"]);
  expect(done.slice(-2)).toEqual(["/a closed", "/b closed"]);
});

test("what was made is closed where measuring fails", async () => {
  const done: string[] = [];
  const fails = { ...partOf(1, done, "husk"), figures: [{ ...failing, husk: () => Promise.reject(new Error("no")) }] };
  await expect(
    measurePart(
      "calls",
      () => Promise.resolve(fails),
      named("/a"),
      settings,
      () => {},
    ),
  ).rejects.toThrow("no");
  expect(done).toEqual(["husk closed"]);
});

const failing = { name: "start", unit: "ms", better: "less", goals: [], beside: {} } as const;
