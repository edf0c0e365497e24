/**
 * The sandbox that stands by for the next container, where a template is kept warm: a pool of one, which the keeper of the template's zygote keeps from when a
 * container has begun that it would have done for, and as long as the template is used.
 *
 *     TEMPLATE/zygote/standby.json         what is to stand by (StandbyOrder) for containers of the command line that have folders of the host
 *                    /standby-image.json   likewise, for those whose files are all in images
 *                    /standby-shim.json    likewise, for containers of containerd's shim that have folders
 */
import { existsSync, readFileSync, renameSync, rmSync, writeFileSync } from "node:fs";
import { constants, setPriority } from "node:os";
import { join } from "node:path";
import { explain } from "../errors.ts";
import { map, nonEmptyString, object, optional, type Reader, read, string } from "../narrow.ts";
import type { Template } from "../template/store.ts";
import { zygoteFolder } from "../template/zygote.ts";
import { Calm } from "./calm.ts";
import { type MemberProgram, Pool, type PoolOptions, supervisorProgram } from "./pool.ts";
import { type StandbyKind, spareName, standbyName } from "./pool-folder.ts";

/** What is to stand by. */
export interface StandbyOrder {
  /** The folder of all pools. */
  readonly root: string;
  /** machineKey. */
  readonly key: string;
  /** In words for people. */
  readonly machine: string;
  /** MemberOrder.settings. */
  readonly settings: Readonly<Record<string, string>>;
  /** What of the environment makes the configuration. */
  readonly environment: Readonly<Record<string, string>>;
  /** MemberOrder.engineNamespace. */
  readonly engineNamespace?: string;
}

const orderReader: Reader<StandbyOrder> = object<StandbyOrder>({
  root: nonEmptyString,
  key: nonEmptyString,
  machine: string,
  settings: map(string),
  environment: map(string),
  engineNamespace: optional(nonEmptyString),
});

type Warm = Pick<Template, "folder">;

const orderNames: Readonly<Record<StandbyKind, string>> = {
  folder: "standby.json",
  image: "standby-image.json",
  shim: "standby-shim.json",
};

export const standbyKinds: readonly StandbyKind[] = ["folder", "image", "shim"];

/** The names of the files that hold orders. */
export const standbyFiles: readonly string[] = Object.values(orderNames);

/** What stands by: the program that would be started for the container, in the way in which it would be started (guest-agent/helper/src/shim/daemon.rs). */
const programs: Readonly<Record<StandbyKind, MemberProgram>> = {
  folder: supervisorProgram,
  image: supervisorProgram,
  shim: {
    script: "shim.js",
    flags: ["--no-warnings", "--max-semi-space-size=1"],
    environment: { MALLOC_ARENA_MAX: "1", MALLOC_TRIM_THRESHOLD_: "131072" },
  },
};

function orderPath(template: Warm, kind: StandbyKind): string {
  return join(zygoteFolder(template), orderNames[kind]);
}

/** Whether somebody has asked for a sandbox of the template to stand by. */
export function isStandbyOrdered(template: Warm, kind: StandbyKind): boolean {
  return existsSync(orderPath(template, kind));
}

/** Asks the keeper of the template's zygote for a sandbox that stands by. Throws where the order cannot be written: there is no keeper any more. */
export function orderStandby(template: Warm, kind: StandbyKind, order: StandbyOrder): void {
  const path = orderPath(template, kind);
  const draft = `${path}.${process.pid}`;
  writeFileSync(draft, JSON.stringify(order), { mode: 0o600 });
  renameSync(draft, path);
}

/** What of the environment the configuration, and what it names, are found by. */
const variables = /^(HUSK_.*|PATH|HOME|XDG_.*)$/;

/** StandbyOrder.environment. */
export function standbyEnvironment(env: NodeJS.ProcessEnv): Record<string, string> {
  return Object.fromEntries(
    Object.entries(env).flatMap(([name, value]) => (value !== undefined && variables.test(name) ? [[name, value]] : [])),
  );
}

/** How long nobody may have come before a sandbox is made again, in milliseconds: those who come one after the other have spares, and the processors. */
const calmAfterMs = 200;

/** What the keeper has for all that stands by. */
export interface Keeping {
  readonly template: Warm;
  readonly helper: string;
  readonly warn: (message: string) => void;
  readonly calm: Calm;
}

export function keeping(what: Omit<Keeping, "calm">): Keeping {
  return { ...what, calm: new Calm(calmAfterMs) };
}

/** The keeper's side. */
export class Standby {
  readonly #kind: StandbyKind;
  readonly #keeping: Keeping;
  readonly #pools: Pool[] = [];
  /** Once it has not worked, it is not tried again by this keeper. */
  #failed = false;

  constructor(kind: StandbyKind, own: Keeping) {
    this.#kind = kind;
    this.#keeping = own;
  }

  /** Keeps a sandbox standing by from now on, where one is asked for. What keeps it from that is told once. */
  async begin(): Promise<void> {
    if (this.#pools.length > 0 || this.#failed || !isStandbyOrdered(this.#keeping.template, this.#kind)) return;
    try {
      const { key, ...order } = read(orderReader, JSON.parse(readFileSync(orderPath(this.#keeping.template, this.#kind), "utf8")));
      // What a container will run in must not have the keeper's priority, which it would have for good. Their cgroup has them give way while they wait.
      setPriority(constants.priority.PRIORITY_NORMAL);
      const spareOnes = spareName(key, this.#kind);
      // Where there are no spares, nobody is to wait for calm.
      const calm = spareOnes === undefined ? {} : { calm: this.#keeping.calm };
      const pool = { ...order, ...calm, key, shares: this.#kind !== "image", size: 1, program: programs[this.#kind] };
      // First what is ready first.
      if (spareOnes !== undefined)
        await this.#open({ ...pool, name: spareOnes, machine: `${order.machine}, without a sandbox`, spare: true });
      await this.#open({ ...pool, name: standbyName(key, this.#kind) });
    } catch (error) {
      await this.#giveUp(error);
    }
  }

  /** Ends what stands by, until somebody asks anew. */
  async end(): Promise<void> {
    rmSync(orderPath(this.#keeping.template, this.#kind), { force: true });
    await this.#stop();
  }

  async #open(options: Omit<PoolOptions, "helper" | "warn">): Promise<void> {
    const pool = await Pool.open({ ...options, helper: this.#keeping.helper, warn: this.#keeping.warn });
    this.#pools.push(pool);
    pool.run(() => {}).catch((error: unknown) => this.#giveUp(error));
  }

  async #giveUp(error: unknown): Promise<void> {
    this.#failed = true;
    this.#keeping.warn(`no sandbox stands by: ${explain(error)}`);
    await this.#stop();
  }

  async #stop(): Promise<void> {
    await Promise.all(this.#pools.splice(0).map((pool) => pool.stop()));
  }
}
