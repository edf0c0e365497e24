import { spawn } from "node:child_process";
import { once } from "node:events";
import { readFileSync } from "node:fs";
import { describe, expect, it } from "vitest";
import { identify, isAlive, parseStat, signalProcess } from "./process-identity.ts";

/** A stat line with the given state and start time. */
function statLine(name: string, state: string, start: number): string {
  return `7 (${name}) ${state} 1 7 7 0 -1 4194560 0 0 0 0 0 0 0 0 20 0 1 0 ${start} 1 1 1`;
}

describe("parseStat", () => {
  it("takes field 22, whatever the program's name holds", () => {
    expect(parseStat(7, statLine("a b) S (1 2 3", "S", 4242))).toEqual({ pid: 7, start: 4242 });
  });

  it.each(["Z", "X"])("counts a process in state %s as ended", (state) => {
    expect(parseStat(7, statLine("sh", state, 4242))).toBeUndefined();
  });

  it("knows no process in text that is no stat", () => {
    expect(parseStat(7, "")).toBeUndefined();
    expect(parseStat(7, "7 (sh) S 1 2")).toBeUndefined();
  });
});

describe("identify", () => {
  it("tells a living process from one that had its PID before", () => {
    const own = identify(process.pid);
    if (own === undefined) throw new Error("this process must be found");
    const uptimeTicks = Number(readFileSync("/proc/uptime", "utf8").split(" ")[0]) * 100;
    expect(own.start).toBeGreaterThan(0);
    expect(own.start).toBeLessThanOrEqual(uptimeTicks);
    expect(isAlive(own)).toBe(true);
    expect(isAlive({ pid: own.pid, start: own.start - 1 })).toBe(false);
  });

  it.each([0, -1, 1.5, Number.NaN, 2 ** 31])("knows no process %s", (pid) => {
    expect(identify(pid)).toBeUndefined();
  });
});

describe("signalProcess", () => {
  it("signals that very process, and none that merely has its PID", async () => {
    const child = spawn("sleep", ["60"]);
    const identity = identify(child.pid ?? 0);
    if (identity === undefined) throw new Error("the child must be found");
    expect(signalProcess({ pid: identity.pid, start: identity.start + 1 }, "SIGKILL")).toBe(false);
    expect(isAlive(identity)).toBe(true);
    const exit = once(child, "exit");
    expect(signalProcess(identity, "SIGTERM")).toBe(true);
    expect(await exit).toEqual([null, "SIGTERM"]);
    expect(signalProcess(identity, "SIGTERM")).toBe(false);
  });
});
