/**
 * systemd's part of a sandbox's cgroups (`--systemd-cgroup`): a transient scope unit, which systemd makes, limits and removes, where otherwise husk
 * makes folders. https://www.freedesktop.org/wiki/Software/systemd/ControlGroupInterface/
 *
 *     start ── StartTransientUnit (with one process: a scope without any ends) ── JobRemoved: "done"
 *     update ─ SetUnitProperties
 *     delete ─ is it ours? ── KillUnit, StopUnit ── JobRemoved; a scope whose last process has ended is gone by itself
 */
import { randomBytes } from "node:crypto";
import { DbusClient, type Remote, systemBus } from "../dbus/dbus.ts";
import type { Message } from "../dbus/message.ts";
import { DbusCallError, type DbusValue, type Variant } from "../dbus/types.ts";
import { HuskError } from "../errors.ts";
import { type CgroupLimits, weightOf } from "./cgroups.ts";
import { withDeadline } from "./deadline.ts";
import { hasCode } from "./system-error.ts";

/** A scope unit, as the bundle and the command line name it. */
export interface Scope {
  /** Such as "libpod-0123.scope". */
  readonly unit: string;
  /** The slice that it is in, such as "machine.slice". */
  readonly slice: string;
}

/** A scope that was asked for. Units' names are everybody's: which one is ours, its description says. */
export interface OwnScope {
  readonly unit: string;
  readonly description: string;
}

/** A description that no other unit has. */
export function describeScope({ unit }: Scope): string {
  return `husk sandbox ${unit.replace(/\.scope$/, "")} ${randomBytes(8).toString("hex")}`;
}

/** How long systemd may take over one of our requests, in milliseconds: runc's bound. */
const jobWithinMs = 30_000;

const manager: Remote = {
  destination: "org.freedesktop.systemd1",
  path: "/org/freedesktop/systemd1",
  interface: "org.freedesktop.systemd1.Manager",
};

/** How systemd calls what is not (or not any more) there. */
const noSuchUnit = "org.freedesktop.systemd1.NoSuchUnit";
const unknownObject = "org.freedesktop.DBus.Error.UnknownObject";
const unitExists = "org.freedesktop.systemd1.UnitExists";

type Property = readonly [name: string, value: Variant];

/**
 * Has systemd make the scope, with the process in it. `version`: that of the cgroups that systemd manages. Rejects with `host` where systemd
 * cannot be asked or cannot do it, and with `already-exists` where there is such a unit. `beforeAsking`: told once systemd is there to be asked; before that,
 * there is no scope to be stopped, and nobody who could.
 */
export async function startScope(
  { unit, slice, description }: Scope & OwnScope,
  pid: number,
  limits: CgroupLimits,
  version: 1 | 2,
  beforeAsking: () => void,
): Promise<void> {
  await withSystemd(`cannot make the scope ${unit}`, async (systemd) => {
    beforeAsking();
    const properties: Property[] = [
      ["Description", { signature: "s", value: description }],
      ["Slice", { signature: "s", value: slice }],
      ["PIDs", { signature: "au", value: [pid] }],
      // Ours to divide further: systemd leaves alone what is below it, and enables every controller.
      ["Delegate", flag(true)],
      ["MemoryAccounting", flag(true)],
      ["CPUAccounting", flag(true)],
      ["TasksAccounting", flag(true)],
      [version === 2 ? "IOAccounting" : "BlockIOAccounting", flag(true)],
      // As with runc: a host that shuts down stops its engines before their containers.
      ["DefaultDependencies", flag(false)],
      ["CollectMode", { signature: "s", value: "inactive-or-failed" }],
      ...limitProperties(limits, version),
    ];
    const start = (): Promise<void> => systemd.job("StartTransientUnit", "ssa(sv)a(sa(sv))", [unit, "fail", properties, []]);
    try {
      await start();
    } catch (error) {
      if (!isCallError(error, unitExists)) throw error;
      // One of that name may be in systemd's memory alone, since it failed.
      await systemd.call("ResetFailedUnit", "s", [unit]).catch(unlessGone);
      await start();
    }
  });
}

/** Changes the scope's limits. Rejects with `host` where systemd cannot be asked, or does not want to. */
export async function limitScope(unit: string, limits: CgroupLimits, version: 1 | 2): Promise<void> {
  const properties = limitProperties(limits, version);
  if (properties.length === 0) return;
  await withSystemd(`cannot limit the scope ${unit}`, async (systemd) => {
    await systemd.call("SetUnitProperties", "sba(sv)", [unit, true, properties]);
  });
}

/**
 * Ends what is left in the scope, and the scope. One that is gone is no error, nor is one of that name that is somebody else's, which stays. Rejects with
 * `host` where systemd cannot be asked, or cannot do it.
 */
export async function stopScope({ unit, description }: OwnScope): Promise<void> {
  await withSystemd(`cannot stop the scope ${unit}`, async (systemd) => {
    try {
      if ((await systemd.description(unit)) !== description) return;
      await systemd.call("KillUnit", "ssi", [unit, "all", 9]);
      await systemd.job("StopUnit", "ss", [unit, "replace"]);
    } catch (error) {
      unlessGone(error);
    }
  });
}

/** The limits as systemd has them; what it has not (limits of single block devices) is written to the cgroup's files, as without it. */
export function limitProperties(limits: CgroupLimits, version: 1 | 2): Property[] {
  const { memoryBytes, cpuShares, cpus, mems } = limits;
  const properties: Property[] = [];
  if (memoryBytes !== undefined) {
    properties.push([version === 2 ? "MemoryMax" : "MemoryLimit", { signature: "t", value: BigInt(memoryBytes) }]);
  }
  if (cpuShares !== undefined) {
    const weight: Property = version === 2 ? ["CPUWeight", number(weightOf(cpuShares))] : ["CPUShares", number(cpuShares)];
    properties.push(weight);
  }
  if (version === 1) return properties; // it has no others for cgroup v1
  if (cpus !== undefined) properties.push(["AllowedCPUs", { signature: "ay", value: bitmap(cpus) }]);
  if (mems !== undefined) properties.push(["AllowedMemoryNodes", { signature: "ay", value: bitmap(mems) }]);
  return properties;
}

/** systemd, for as long as one request takes. */
class Systemd implements Disposable {
  readonly #bus: DbusClient;
  readonly #jobs: JobResults;

  /** Throws where there is no system bus. */
  static async connect(): Promise<Systemd> {
    const jobs = new JobResults();
    const bus = await DbusClient.connect(systemBus(process.env["DBUS_SYSTEM_BUS_ADDRESS"]), (signal) => jobs.note(signal));
    return new Systemd(bus, jobs);
  }

  private constructor(bus: DbusClient, jobs: JobResults) {
    this.#bus = bus;
    this.#jobs = jobs;
  }

  call(member: string, signature: string, body: readonly DbusValue[]): Promise<readonly DbusValue[]> {
    return this.#bus.call(manager, member, signature, body);
  }

  /** How a unit that is loaded describes itself. */
  async description(unit: string): Promise<DbusValue | undefined> {
    const [path] = await this.call("GetUnit", "s", [unit]);
    const properties = { ...manager, path: String(path), interface: "org.freedesktop.DBus.Properties" };
    const [answer] = await this.#bus.call(properties, "Get", "ss", ["org.freedesktop.systemd1.Unit", "Description"]);
    return typeof answer === "object" && "value" in answer ? answer.value : undefined;
  }

  /** Calls a method that begins a job, and waits for the job's end. Throws where it did not do what it was for. */
  async job(member: string, signature: string, body: readonly DbusValue[]): Promise<void> {
    await this.#bus.match({ type: "signal", sender: manager.destination, interface: manager.interface, member: "JobRemoved" });
    await this.call("Subscribe", "", []); // systemd tells of its jobs while somebody listens
    const [job] = await this.call(member, signature, body);
    const result = await this.#jobs.resultOf(String(job));
    if (result !== "done") throw new Error(`systemd's job ended as "${result}"`);
  }

  [Symbol.dispose](): void {
    this.#bus[Symbol.dispose]();
  }
}

/** How jobs ended: systemd may say so before it is known which one is ours. */
class JobResults {
  readonly #results = new Map<string, PromiseWithResolvers<string>>();

  note({ interface: from, member, body: [, job, , result] }: Message): void {
    if (from === manager.interface && member === "JobRemoved") this.#entry(String(job)).resolve(String(result));
  }

  resultOf(job: string): Promise<string> {
    return this.#entry(job).promise;
  }

  #entry(job: string): PromiseWithResolvers<string> {
    const entry = this.#results.get(job) ?? Promise.withResolvers<string>();
    this.#results.set(job, entry);
    return entry;
  }
}

/** Carries a request out. Everything that goes wrong becomes one error of the host, but for `already-exists`. */
async function withSystemd(purpose: string, request: (systemd: Systemd) => Promise<void>): Promise<void> {
  const attempt = async (): Promise<void> => {
    using systemd = await Systemd.connect();
    await withDeadline(request(systemd), jobWithinMs, "systemd");
  };
  try {
    await attempt();
  } catch (cause) {
    if (isCallError(cause, unitExists)) throw new HuskError("already-exists", purpose, { cause });
    throw new HuskError("host", purpose, { cause, ...hintFor(cause) });
  }
}

/** A host without systemd has no bus that answers. */
function hintFor(cause: unknown): { readonly hint?: string } {
  return hasCode(cause, "ENOENT", "ECONNREFUSED") ? { hint: "without systemd, leave --systemd-cgroup out" } : {};
}

function isCallError(error: unknown, name: string): boolean {
  return error instanceof DbusCallError && error.errorName === name;
}

function unlessGone(error: unknown): void {
  if (!isCallError(error, noSuchUnit) && !isCallError(error, unknownObject)) throw error;
}

function flag(value: boolean): Variant {
  return { signature: "b", value };
}

function number(value: number): Variant {
  return { signature: "t", value: BigInt(value) };
}

/** A list such as "0-3,7" as systemd has it: a bit for each number, the first in the lowest bit of the first byte. */
function bitmap(list: string): number[] {
  const bytes: number[] = [];
  for (const range of list.split(",")) {
    const [first = 0, last = first] = range.split("-").map(Number);
    for (let index = first; index <= last; index++) {
      while (bytes.length <= index >> 3) bytes.push(0);
      bytes[index >> 3] = (bytes[index >> 3] ?? 0) | (1 << (index & 7));
    }
  }
  return bytes;
}
