/** The kills for want of memory in a container, told as they happen. */
import type { AgentClient } from "../agent/agent-client.ts";
import { HuskError } from "../errors.ts";

/**
 * Waits until more than `after` of the container's processes have been killed for want of memory since it began, and answers how many. Throws `guest` when
 * the guest is gone first, and `signal`'s reason when nobody waits any more.
 */
export async function moreMemoryKills(agent: AgentClient, containerId: string, after: number, signal: AbortSignal): Promise<number> {
  signal.throwIfAborted();
  const { promise, resolve, reject } = Promise.withResolvers<number>();
  promise.catch(() => {}); // it may fail while the count so far is asked for
  const stream = agent.events();
  const onAbort = (): void => stream.cancel();
  signal.addEventListener("abort", onAbort, { once: true });
  stream.on("error", (cause) => reject(signal.aborted ? signal.reason : new HuskError("guest", "the guest's events ended", { cause })));
  stream.on("end", () => reject(new HuskError("guest", "the guest's events ended")));
  stream.on("data", ({ containerId: whose, event }) => {
    if (whose !== containerId || event?.$case !== "oom") return;
    const kills = Number(event.value.oomKills);
    if (kills > after) resolve(kills);
  });
  try {
    // The stream first: a kill between the two is in one of them at least.
    const { files } = await agent.call("statsContainer", { containerId });
    const soFar = memoryKills(files["memory.events"] ?? "");
    return soFar > after ? soFar : await promise;
  } finally {
    signal.removeEventListener("abort", onAbort);
    stream.cancel();
  }
}

/** Tells every kill for want of memory in any of the guest's containers, with the container's kills since it began, until the guest is gone. */
export function watchMemoryKills(agent: AgentClient, onKill: (containerId: string, kills: number) => void): void {
  const stream = agent.events();
  stream.on("error", () => {}); // the guest's end, which others tell of
  stream.on("data", ({ containerId, event }) => {
    if (event?.$case === "oom") onKill(containerId, Number(event.value.oomKills));
  });
}

/** The counter in cgroup v2's memory.events. */
export function memoryKills(memoryEvents: string): number {
  return Number(/^oom_kill (\d+)$/m.exec(memoryEvents)?.[1] ?? 0);
}
