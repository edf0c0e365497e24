/** What every member of the pool does, whatever program it is: it talks to the pool that has started it, and becomes what its taker's child would be. */
import { readFileSync } from "node:fs";
import { Socket } from "node:net";
import { type Config, loadConfig } from "../config/config.ts";
import { explain, HuskError } from "../errors.ts";
import { type CgroupHierarchy, cgroupsIn, joinCgroups } from "../host/cgroups.ts";
import { readJsonLines, writeJsonLine } from "../host/lines.ts";
import { read } from "../narrow.ts";
import { type MemberEvent, type MemberOrder, orderReader } from "./messages.ts";
import type { Waiter } from "./waiter.ts";

/** The descriptor on which the pool is told. */
const poolDescriptor = 3;

/** The member's side of its conversation with the pool. As long as it is not taken, the pool's end is its own. */
class PoolConversation {
  readonly #pool = new Socket({ fd: poolDescriptor, readable: true, writable: true });
  #isTaken = false;

  constructor() {
    const onEnd = (): void => {
      if (!this.#isTaken) process.exit(0); // the pool is gone, and whatever is in the sandbox's namespaces goes with this process
    };
    readJsonLines(this.#pool, "the pool", () => {}, onEnd);
  }

  /** Tells the pool, where that is still there. */
  tell(event: MemberEvent): void {
    if (event === "taken") {
      this.#isTaken = true;
      this.#pool.unref();
    }
    if (this.#pool.writable) writeJsonLine(this.#pool, { event });
  }
}

/** What a program does as a member. */
export interface MemberWork<W extends Waiter, Taking> {
  /** Tells the pool, which shows what the last lines were where the member ends. */
  readonly complain: (message: string) => void;
  /** Makes what is ordered. `config`: the configuration with the pool's flags. */
  readonly start: (order: MemberOrder, config: Config, complain: (message: string) => void) => Promise<W>;
  /** What else is done before it waits. */
  readonly prepare?: (member: W, order: MemberOrder) => Promise<void>;
  /** Resolves once somebody takes it; declines whom it does not suit. */
  readonly taking: (member: W) => Promise<Taking>;
  /** Serves its taker to the end. `onStarted`: called once there is nothing more to be done for it but to wait. */
  readonly serve: (member: W, taking: Taking, onStarted: () => void) => Promise<void>;
}

/** Serves the pool that has started this process, and then its taker. `order`: a MemberOrder, in JSON. Ends the process where that fails. */
export async function beMember<W extends Waiter, Taking>(
  order: string,
  { complain, start, prepare, taking, serve }: MemberWork<W, Taking>,
): Promise<void> {
  const pool = new PoolConversation();
  try {
    const ordered = read(orderReader, JSON.parse(order));
    await joinCgroups(ordered.cgroups, [process.pid]);
    const member = await start(ordered, await memberConfiguration(ordered), complain);
    await prepare?.(member, ordered);
    const died = member.died.then((reason) => Promise.reject(new HuskError("vmm", reason)));
    died.catch(() => {}); // once it is somebody's, it is that one's to be told
    pool.tell("ready");
    const taken = await Promise.race([taking(member), died]);
    pool.tell("taken");
    await serve(member, taken, () => pool.tell("settled"));
    pool.tell("settled");
  } catch (error) {
    complain(explain(error));
    process.exit(1);
  }
}

/** The configuration with the pool's flags. */
async function memberConfiguration({ settings }: MemberOrder): Promise<Config> {
  const flags = Object.fromEntries(Object.entries(settings).map(([key, text]) => [key, { name: key, text }]));
  return (await loadConfig({ env: process.env, flags })).config;
}

/** What a child has of its parent, and this process of itself. */
export interface Inheritance {
  readonly environment: NodeJS.ProcessEnv;
  readonly umask: number;
}

/** Takes over what a child would have of its parent. */
export function become({ environment, umask }: Inheritance): void {
  process.umask(umask);
  for (const name of Object.keys(process.env)) if (!(name in environment)) delete process.env[name];
  Object.assign(process.env, environment);
}

/** Into the cgroups of the caller, from which what it starts begins, and into `others`: this process, and the sandbox's helper. */
export async function joinCaller(
  caller: number,
  helperPid: number,
  hierarchies: readonly CgroupHierarchy[],
  others: readonly string[] = [],
): Promise<void> {
  const pids = [process.pid, helperPid];
  await joinCgroups(cgroupsIn(readFileSync(`/proc/${caller}/cgroup`, "utf8"), hierarchies), pids);
  await joinCgroups(others, pids);
}
