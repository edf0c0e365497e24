/** `husk events`: what a container uses and each kill for want of memory, as JSON lines in runc's form. */
import { watch } from "node:fs/promises";
import { explain, HuskError } from "../errors.ts";
import { hasCode } from "../host/system-error.ts";
import { stringifyJson } from "../oci/json.ts";
import { ControlClient } from "../sandbox/control-client.ts";
import { memoryKills } from "../sandbox/memory-kills.ts";
import { readRecord } from "../sandbox/record.ts";
import { runFolder } from "../sandbox/run-folder.ts";
import type { Invocation } from "./command-line.ts";
import { parseDuration } from "./duration.ts";
import type { Log } from "./log.ts";
import { print } from "./output.ts";
import { readStats, runcStats } from "./stats.ts";

const defaultIntervalMs = 5_000;

/** The longest that a call can wait, in milliseconds: three weeks, after which it is made again. */
const watchMs = 2 ** 31 - 1;

/** How long a supervisor whose guest is gone may take to say so in the container's record, in milliseconds. */
const recordWithinMs = 15_000;

export async function events({ globals, flags, operands: [id = ""] }: Invocation<"events">, log: Log): Promise<void> {
  const intervalMs = flags.interval === undefined ? defaultIntervalMs : parseDuration("--interval", flags.interval);
  const { root } = globals;
  if (readRecord(root, id).status === "stopped") throw new HuskError("wrong-state", `container with id ${id} is not running`);
  using client = await ControlClient.connect(root, id);
  const emit = (event: object): void => print(`${stringifyJson(event)}\n`);
  const use = async (): Promise<Readonly<Record<string, string>>> => readStats(await client.call("stats")).files;
  const first = await use();
  if (flags.stats) return emit({ type: "stats", id, data: runcStats(first) });

  let isTold = false; // that it fails: by what follows below, or by a call before
  void client.closed.then(() => {
    isTold = true;
  });
  const failed = async (error: unknown): Promise<void> => {
    if (isTold) return;
    isTold = true;
    if (!(await ends(root, id))) log.warning(explain(error)); // that a container ends is no failure
  };
  const timer = setInterval(() => {
    use()
      .then((files) => {
        emit({ type: "stats", id, data: runcStats(files) });
        isTold = false;
      }, failed)
      .catch((error: unknown) => log.warning(explain(error)));
  }, intervalMs);
  try {
    for (let kills = memoryKills(first["memory.events"] ?? ""); ; ) {
      kills = await nextKills(client, kills);
      emit({ type: "oom", id });
    }
  } catch (error) {
    if (!(await ends(root, id))) throw error;
  } finally {
    clearInterval(timer);
  }
}

/** How many were killed for want of memory, once they are more than `after`. */
async function nextKills(client: ControlClient, after: number): Promise<number> {
  for (;;) {
    try {
      const { count } = await client.call("memoryKills", { after }, { deadlineMs: watchMs });
      if (typeof count === "number") return count;
    } catch (error) {
      if (!(error instanceof HuskError) || error.code !== "deadline") throw error;
      continue;
    }
    throw new HuskError("internal", "the supervisor did not say how many were killed");
  }
}

/** Whether the container ends: its guest is gone moments before its record says so, so that a change of the record is waited for. */
async function ends(root: string, id: string): Promise<boolean> {
  const over = new AbortController();
  const timer = setTimeout(() => over.abort(), recordWithinMs);
  try {
    const changes = watch(runFolder(root, id).path, { signal: over.signal })[Symbol.asyncIterator]();
    let next = changes.next(); // the watch begins here: a change after it is not missed
    while (!hasEnded(root, id)) {
      await next;
      next = changes.next();
    }
    next.catch(() => {}); // nobody waits for it any more
    return true;
  } catch (error) {
    if (over.signal.aborted) return false;
    if (hasCode(error, "ENOENT")) return true;
    throw error;
  } finally {
    clearTimeout(timer);
    over.abort();
  }
}

/** Whether the container has stopped, or was deleted since. */
function hasEnded(root: string, id: string): boolean {
  try {
    return readRecord(root, id).status === "stopped";
  } catch (error) {
    if (error instanceof HuskError && error.code === "not-found") return true;
    throw error;
  }
}
