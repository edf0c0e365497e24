/**
 * The pool: keeps as many sandboxes ready as it was asked to. A sandbox that is taken is replaced in the background, one at a time, and not before its
 * taker is done with starting; the members' cgroup gives way to everybody else's. A pool that dies takes with it what waits, and nothing that was taken.
 */
import { type ChildProcess, spawn } from "node:child_process";
import { readFileSync, rmSync } from "node:fs";
import { join } from "node:path";
import type { Duplex, Readable } from "node:stream";
import { setTimeout as delay } from "node:timers/promises";
import { explain, HuskError } from "../errors.ts";
import { findHierarchies, limitCgroups, makeCgroups } from "../host/cgroups.ts";
import { deferred } from "../host/deferred.ts";
import { installationFolder } from "../host/installation.ts";
import { noteInLedger } from "../host/ledger.ts";
import { readJsonLines } from "../host/lines.ts";
import { identify } from "../host/process-identity.ts";
import { Tail } from "../host/tail.ts";
import { read } from "../narrow.ts";
import { giveBackLedger } from "../sandbox/give-back.ts";
import type { Calm } from "./calm.ts";
import { eventReader, type MemberEvent, type MemberOrder, poolMember } from "./messages.ts";
import { claimPool, listPools, memberSocket, type PoolFolder, removePoolFolder } from "./pool-folder.ts";
import { makeImageBundle, makeRehearsalBundle } from "./rehearsal.ts";

/** The weight of all members together (cpu.shares): a tenth of what a container has that asks for nothing. */
const memberShares = 102;

/** After a member that never got ready: the first wait, and the longest, in milliseconds. */
const firstRetryMs = 1_000;
const longestRetryMs = 60_000;

/** A container that has run for so long is no short one, in milliseconds: its sandbox is replaced while it runs. */
const shortRunMs = 500;

/** A program of husk's as a member. */
export interface MemberProgram {
  /** Its file in dist/. */
  readonly script: string;
  /** Node's own. */
  readonly flags: readonly string[];
  /** What it has besides PoolOptions.environment. */
  readonly environment: Readonly<Record<string, string>>;
}

/** The command line's. */
export const supervisorProgram: MemberProgram = { script: "supervisor.js", flags: ["--no-warnings"], environment: {} };

export interface PoolOptions {
  /** The folder of all pools. */
  readonly root: string;
  /** Its own folder's name. */
  readonly name: string;
  /** MemberOrder.key. */
  readonly key: string;
  /** MemberOrder.shares. */
  readonly shares: boolean;
  /** In words for people. */
  readonly machine: string;
  readonly size: number;
  readonly helper: string;
  /** What its members are. */
  readonly program: MemberProgram;
  /** MemberOrder.spare. What is there for those who come one after the other is replaced at once. */
  readonly spare?: boolean;
  /** What those who take a member disturb, until they are done with starting; a member with a sandbox is replaced when that is over. */
  readonly calm?: Calm;
  /** MemberOrder.engineNamespace. */
  readonly engineNamespace?: string;
  /** MemberOrder.settings. */
  readonly settings: Readonly<Record<string, string>>;
  /** The members' environment. */
  readonly environment: Readonly<NodeJS.ProcessEnv>;
  readonly warn: (message: string) => void;
}

/** A member, from its start until it is somebody's, or dead. */
interface Member {
  readonly name: string;
  readonly child: ChildProcess;
  /** Resolves once it waits; rejects where it never will. */
  readonly ready: Promise<void>;
  /** Resolves once there is nothing more to be done for who took it, or it is dead. */
  readonly over: Promise<void>;
}

export class Pool {
  readonly #options: PoolOptions;
  readonly #folder: PoolFolder;
  readonly #cgroups: readonly string[];
  readonly #members = new Set<Member>();
  /** Those that are nobody's yet. */
  readonly #waiting = new Set<Member>();
  readonly #stopping = new AbortController();
  #lack = deferred<void>();
  #count = 0;

  /**
   * Makes the pool's folder and cgroups. Throws `already-exists` where there is one that lives; what a dead one has left is removed. Throws `host` where there is no
   * program that makes an image, and one is needed.
   */
  static async open(options: PoolOptions): Promise<Pool> {
    const { root, name, size, machine, helper } = options;
    const same = listPools(root).find(({ folder }) => folder.key === name);
    if (same?.alive === false) await removeDeadPool(same.folder, helper);
    const self = identify(process.pid);
    if (self === undefined) throw new HuskError("internal", "this process is not to be found in /proc");
    const folder = claimPool(root, name, { process: self, size, machine });
    try {
      if (options.shares) makeRehearsalBundle(folder.rehearsal, helper);
      else if (!(await makeImageBundle(folder.rehearsal, helper, "ext4"))) {
        throw new HuskError("host", "there is no mkfs.ext4 here, and with it no image to rehearse with");
      }
      return new Pool(options, folder, makePoolCgroups(folder));
    } catch (error) {
      await giveBackLedger(folder.ledger, options.helper);
      removePoolFolder(folder);
      throw error;
    }
  }

  private constructor(options: PoolOptions, folder: PoolFolder, cgroups: readonly string[]) {
    this.#options = options;
    this.#folder = folder;
    this.#cgroups = cgroups;
  }

  /**
   * Keeps the pool full until `stop`. `onFull` is told when it is for the first time. Throws what kept the first member from getting ready: it is most
   * likely what would keep all.
   */
  async run(onFull: () => void): Promise<void> {
    const stopped = new Promise<void>((resolve) => this.#stopping.signal.addEventListener("abort", () => resolve()));
    let wasFull = false;
    let retryMs = firstRetryMs;
    while (!this.#stopping.signal.aborted) {
      if (this.#members.size >= this.#options.size) {
        if (!wasFull) onFull();
        wasFull = true;
        this.#lack = deferred();
        await Promise.race([this.#lack.promise, stopped]);
        continue;
      }
      const member = this.#start();
      try {
        await Promise.race([member.ready, stopped]);
        retryMs = firstRetryMs;
      } catch (error) {
        if (!wasFull && this.#members.size === 0) throw error;
        this.#options.warn(explain(error));
        await Promise.race([delay(retryMs), stopped]);
        retryMs = Math.min(2 * retryMs, longestRetryMs);
      }
    }
  }

  /** Ends every sandbox that waits, and gives back what the pool took. */
  async stop(): Promise<void> {
    this.#stopping.abort();
    const waiting = [...this.#waiting];
    for (const { child } of waiting) child.kill("SIGKILL");
    await Promise.all(waiting.map(({ over }) => over));
    await giveBackLedger(this.#folder.ledger, this.#options.helper);
    removePoolFolder(this.#folder);
  }

  #start(): Member {
    const name = String(++this.#count);
    const { key, shares, settings, environment, program, engineNamespace, spare = false, calm, warn } = this.#options;
    const own = { ...(engineNamespace === undefined ? {} : { engineNamespace }), ...(spare ? { spare } : {}) };
    const order: MemberOrder = { folder: this.#folder.path, name, key, shares, settings, cgroups: this.#cgroups, ...own };
    const script = join(installationFolder(), "dist", program.script);
    const child = spawn(process.execPath, [...program.flags, script, poolMember, JSON.stringify(order)], {
      stdio: ["ignore", "ignore", "pipe", "pipe"],
      env: { ...environment, ...program.environment },
      detached: true, // a session of its own: what the terminal sends to the pool is not for what was taken from it
    });
    const said = new Tail();
    (child.stdio[2] as Readable).on("data", (chunk: Buffer) => said.add(chunk));
    const [ready, over, gone] = [deferred<void>(), deferred<void>(), deferred<void>()];
    ready.promise.catch(() => {}); // whoever awaits it gets it
    const member = { name, child, ready: ready.promise, over: over.promise };
    this.#members.add(member);
    this.#waiting.add(member);
    let state: MemberEvent | "starting" = "starting";
    /** Settles when its taker is done with starting, or is short and done with all. */
    const begun = over.promise.then(() => Promise.race([gone.promise, delay(shortRunMs)]));
    const leave = async (): Promise<void> => {
      // Its taker, where it has one, comes first: with all of it, where that is short.
      if (!spare) {
        await begun;
        await calm?.come();
      }
      this.#members.delete(member);
      this.#lack.resolve();
    };
    const onEvent = (event: MemberEvent): void => {
      state = event;
      if (event === "taken") {
        this.#waiting.delete(member);
        calm?.disturb(begun);
      }
      if (event === "ready") ready.resolve();
      else if (event === "taken") void leave();
      else over.resolve();
    };
    const ended = (how: string): void => {
      const words = said.lines(3).join(" | ");
      const error = new HuskError("host", `a sandbox of the pool ${how}${words === "" ? "" : `: ${words}`}`);
      ready.reject(error);
      if (state === "ready" && !this.#stopping.signal.aborted) warn(explain(error));
      this.#forget(name);
      this.#waiting.delete(member);
      over.resolve();
      gone.resolve();
      if (state !== "taken" && state !== "settled") void leave();
    };
    child.once("error", (cause) => ended(`cannot be started (${cause.message})`));
    child.once("exit", (code, signal) => ended(signal === null ? `ended with status ${code}` : `was killed by ${signal}`));
    readJsonLines(
      child.stdio[3] as Duplex,
      "a sandbox of the pool",
      (message) => onEvent(read(eventReader, message).event),
      () => {}, // its end follows
    );
    return member;
  }

  /** Removes what a dead member has left. */
  #forget(name: string): void {
    rmSync(memberSocket(this.#folder.path, name), { force: true });
    rmSync(join(this.#folder.path, name), { recursive: true, force: true });
  }
}

/** Gives back what a dead pool took. Its members are dead as well. */
export async function removeDeadPool(folder: PoolFolder, helper: string): Promise<void> {
  await giveBackLedger(folder.ledger, helper);
  removePoolFolder(folder);
}

/** Where the members wait, and are made: with little weight, so that a container that starts hardly notices. */
function makePoolCgroups({ key, ledger }: PoolFolder): string[] {
  const hierarchies = findHierarchies(readFileSync("/proc/self/mountinfo", "utf8")).filter(({ controllers }) =>
    controllers.includes("cpu"),
  );
  const path = `/husk-pool-${key}`;
  const folders = makeCgroups(hierarchies, path, (folder) => noteInLedger(ledger, { kind: "cgroup", path: folder }));
  limitCgroups(hierarchies, path, { cpuShares: memberShares });
  return folders;
}
