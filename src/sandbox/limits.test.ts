import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test as base, expect } from "vitest";
import { HuskError } from "../errors.ts";
import { limitCgroups } from "../host/cgroups.ts";
import type { Resources } from "../oci/types.ts";
import { SandboxLimits } from "./limits.ts";

const MIB = 1024 ** 2;
const GIB = 1024 * MIB;
const overhead = { guest: 128 * MIB, host: 300 * MIB };

/** A virtual machine of 1 processor and 1 GiB for containers, with room for 4 and 8 GiB, that says what is done to it. */
class Machine {
  readonly said: string[] = [];
  readonly warned: string[] = [];
  /** What fails, by its first word. */
  failing = "";
  readonly limits: SandboxLimits;
  readonly #folder: string;
  #onMemory: (bytes: number) => void = () => {};

  constructor(folder: string) {
    this.#folder = folder;
    mkdirSync(join(folder, "pod"));
    for (const file of ["memory.max", "cpu.weight", "cpuset.cpus", "cpuset.mems"]) writeFileSync(join(folder, "pod", file), "");
    const vm = {
      plugProcessors: async (count: number) => this.#do("processors", count),
      plugMemory: async ({ bytes, capacityBytes, shared }: { bytes: number; capacityBytes: number; shared: boolean }) =>
        this.#do("plug", bytes / MIB, "of", capacityBytes / MIB, shared ? "shared" : "private"),
      requestMemory: async (bytes: number) => this.#do("request", bytes / MIB),
      watchMemory: (listener: (bytes: number) => void) => {
        this.#onMemory = listener;
      },
    };
    const call = async (_: string, { vcpus, addedMemoryBytes }: { vcpus: number; addedMemoryBytes: bigint }) =>
      this.#do("guest", vcpus, "processors", Number(addedMemoryBytes) / MIB);
    const hierarchies = [{ mountPoint: folder, version: 2, controllers: ["memory", "cpu", "cpuset"] }] as const;
    this.limits = new SandboxLimits({
      base: { vcpus: 1, memoryBytes: GIB + overhead.guest },
      limits: { vcpus: 4, memoryBytes: 8 * GIB + overhead.guest },
      shares: true,
      sizing: {
        vcpus: 1,
        memoryBytes: GIB,
        guestOverheadBytes: overhead.guest,
        hostOverheadBytes: overhead.host,
        hostCpus: 16,
        hostMemoryBytes: 64 * GIB,
      },
      cgroups: { limit: async (change) => limitCgroups(hierarchies, "/pod", change) },
      vm: () => vm as never,
      agent: () => ({ call }) as never,
      warn: (message) => this.warned.push(message),
    });
  }

  /** The guest uses so many MiB of what is plugged in. */
  uses(mebibytes: number): void {
    this.#onMemory(mebibytes * MIB);
  }

  file(name: string): string {
    return readFileSync(join(this.#folder, "pod", name), "utf8");
  }

  /** What the host may be asked for beyond the guest's 1152 MiB and QEMU's own, in MiB. */
  get hostGrowth(): number {
    return (Number(this.file("memory.max")) - GIB - overhead.guest - overhead.host) / MIB;
  }

  change(id: string, changes: Resources, update: () => Promise<void> = async () => {}): Promise<void> {
    return this.limits.change(id, { status: "running", update }, changes);
  }

  async #do(...words: (string | number)[]): Promise<object> {
    this.said.push(words.join(" "));
    if (words[0] === this.failing) throw new HuskError("vmm", `no ${words[0]}`);
    return {};
  }
}

// oxlint-disable-next-line no-empty-pattern -- Vitest reads from the pattern which fixtures this one needs: none.
const test = base.extend("machine", async ({}, { onCleanup }) => {
  const folder = mkdtempSync(join(tmpdir(), "husk-limits-"));
  onCleanup(() => rmSync(folder, { recursive: true }));
  return new Machine(folder);
});

test("what fits the virtual machine changes nothing of it", async ({ machine }) => {
  machine.limits.begin("a", { memory: { limit: GIB } });
  await machine.change("a", { memory: { limit: 64 * MIB }, cpu: { quota: 50_000 }, pids: { limit: 5 } });
  expect(machine.said).toEqual([]);
});

test("a container that comes adds its limits, and takes them along when it ends", async ({ machine }) => {
  await machine.limits.admit("a", { memory: { limit: 768 * MIB }, cpu: { quota: 100_000, shares: 1000 } });
  expect(machine.said).toEqual([]);
  await machine.limits.admit("b", { memory: { limit: 512 * MIB }, cpu: { quota: 150_000, shares: 1000 } });
  expect(machine.said).toEqual(["plug 256 of 7168 shared", "processors 3", "guest 3 processors 256"]);
  expect(machine.hostGrowth).toBe(256);
  expect(machine.file("cpu.weight")).toBe("77"); // of 2000 shares
  machine.uses(256);
  await machine.limits.release("b");
  expect(machine.said.slice(3)).toEqual(["request 0", "guest 1 processors 0"]);
  expect(machine.hostGrowth).toBe(256); // until the guest has given it back
  machine.uses(128);
  expect(machine.hostGrowth).toBe(128);
  machine.uses(0);
  expect(machine.hostGrowth).toBe(0);
});

test("a pod whose containers have all ended is as large as it was made", async ({ machine }) => {
  await machine.limits.admit("a", { memory: { limit: 2 * GIB } });
  machine.said.length = 0;
  await machine.limits.release("a");
  expect(machine.said).toEqual(["request 0"]);
});

test("memory grows in steps that the guest takes whole, before the container's limit rises, and on the host first", async ({ machine }) => {
  machine.limits.begin("a", { memory: { limit: GIB } });
  await machine.change("a", { memory: { limit: GIB + 1 } }, async () => {
    expect(machine.said).toEqual(["plug 128 of 7168 shared", "guest 1 processors 128"]);
    expect(machine.hostGrowth).toBe(128);
  });
  await machine.change("a", { memory: { limit: 2 * GIB } });
  expect(machine.said.slice(2)).toEqual(["request 1024", "guest 1 processors 1024"]);
});

test("processors stay plugged in: the guest takes them offline, and online again", async ({ machine }) => {
  machine.limits.begin("a", { cpu: { quota: 100_000 } });
  for (const quota of [300_000, 100_000, 200_000]) await machine.change("a", { cpu: { quota } });
  expect(machine.said).toEqual(["processors 3", "guest 3 processors 0", "guest 1 processors 0", "guest 2 processors 0"]);
});

test("where a container has no limit any more, what is there stays", async ({ machine }) => {
  machine.limits.begin("a", { memory: { limit: GIB } });
  await machine.change("a", { memory: { limit: 2 * GIB } });
  machine.said.length = 0;
  await machine.change("a", { memory: { limit: -1 } });
  expect(machine.said).toEqual([]);
});

test("what cannot be had is refused by name, before anything is done", async ({ machine }) => {
  machine.limits.begin("a", {});
  await expect(machine.change("a", { memory: { limit: 9 * GIB } })).rejects.toMatchObject({
    code: "unsupported",
    message: "linux.resources.memory.limit: it needs a virtual machine with 9344 MiB of memory, and this one can have 8320 MiB at most",
  });
  await expect(machine.change("a", { cpu: { quota: 500_000 } })).rejects.toThrow(
    "linux.resources.cpu.quota: it needs a virtual machine with 5 processors, and this one can have 4 at most",
  );
  await expect(machine.limits.change("a", { status: "stopped", update: async () => {} }, {})).rejects.toMatchObject({
    code: "wrong-state",
  });
  expect(machine.said).toEqual([]);
});

test.each([
  ["plug", ["plug 1024 of 7168 shared"]],
  ["processors", ["plug 1024 of 7168 shared", "processors 2", "request 0"]],
  ["guest", ["plug 1024 of 7168 shared", "processors 2", "guest 2 processors 1024", "request 0", "guest 1 processors 0"]],
])("a growth that fails at %s is undone, and the container is not asked", async (failing, said) => {
  const folder = mkdtempSync(join(tmpdir(), "husk-limits-"));
  const machine = new Machine(folder);
  machine.limits.begin("a", { memory: { limit: GIB }, cpu: { quota: 100_000 } });
  machine.failing = failing;
  const update = () => Promise.reject(new Error("asked"));
  await expect(machine.change("a", { memory: { limit: 2 * GIB }, cpu: { quota: 200_000 } }, update)).rejects.toThrow(`no ${failing}`);
  expect(machine.said).toEqual(said);
  expect(machine.hostGrowth).toBe(0);
  rmSync(folder, { recursive: true });
});

test("a container that refuses its limits leaves the host's and the machine's as they were", async ({ machine }) => {
  machine.limits.begin("a", { memory: { limit: GIB }, cpu: { shares: 2, cpus: "0" } });
  await expect(
    machine.change("a", { memory: { limit: 2 * GIB }, cpu: { shares: 262_144, cpus: "0-1" } }, () => Promise.reject(new Error("no"))),
  ).rejects.toThrow("no");
  expect([machine.file("cpu.weight"), machine.file("cpuset.cpus")]).toEqual(["1", "0"]);
  expect(machine.said.slice(2)).toEqual(["request 0"]);
  expect(machine.hostGrowth).toBe(0);
});

test("processors of the host: those of all containers, where each names some", async ({ machine }) => {
  await machine.limits.admit("a", { cpu: { cpus: "0" } });
  await machine.limits.admit("b", { cpu: { cpus: "1", mems: "0" } });
  expect([machine.file("cpuset.cpus"), machine.file("cpuset.mems")]).toEqual(["0,1", ""]);
  await machine.limits.admit("c", {});
  expect(machine.file("cpuset.cpus")).toBe("\n"); // all that the parent has
  expect(machine.warned).toEqual([]);
});
