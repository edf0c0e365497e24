/** `husk gc`: removes what nobody else will. */
import { rmSync, statSync } from "node:fs";
import { loadConfig } from "../config/config.ts";
import { explain, HuskError } from "../errors.ts";
import { helperPath } from "../host/installation.ts";
import { describeEntry } from "../host/ledger.ts";
import { isAlive } from "../host/process-identity.ts";
import { removeDeadPool } from "../pool/pool.ts";
import { listPools, poolLeftovers, poolRoot } from "../pool/pool-folder.ts";
import { templateStore } from "../sandbox/plan-vm.ts";
import { type ContainerRecord, listRecords, supervisorDied } from "../sandbox/record.ts";
import { readLedgers, removeRemains } from "../sandbox/removal.ts";
import { listLeftovers, runFolder } from "../sandbox/run-folder.ts";
import type { Invocation } from "./command-line.ts";
import { removalOptions } from "./delete.ts";
import type { Log } from "./log.ts";
import { print } from "./output.ts";

/** A claim or a removal takes moments; a folder of one that is older than this was left by a process that died. In milliseconds. */
const leftoverAfterMs = 60_000;

/** Answers 1 where something could not be removed. */
export async function gc({ globals, flags }: Invocation<"gc">, log: Log): Promise<number> {
  const dryRun = flags["dry-run"];
  const [verb, failures] = [dryRun ? "would remove" : "removed", [] as string[]];
  const { records, errors } = listRecords(globals.root);
  for (const record of records.filter(isAbandoned)) {
    const folder = runFolder(globals.root, record.id);
    try {
      const entries = readLedgers(folder);
      if (!dryRun) await removeRemains(folder, record, entries, removalOptions(log));
      for (const entry of entries.toReversed()) print(`${verb} ${describeEntry(entry)}\n`);
      print(`${verb} the container ${record.id}: ${folder.path}\n`);
    } catch (error) {
      if (!(error instanceof HuskError)) throw error;
      failures.push(`container "${record.id}" was not removed: ${explain(error)}`);
    }
  }
  const { config } = await loadConfig({ env: process.env });
  const pools = poolRoot(process.env);
  for (const { folder } of pools === undefined ? [] : listPools(pools).filter(({ alive }) => !alive)) {
    if (!dryRun) await removeDeadPool(folder, helperPath());
    print(`${verb} ${folder.path}\n`);
  }
  const passing = [...listLeftovers(globals.root), ...(pools === undefined ? [] : poolLeftovers(pools))];
  for (const path of [...passing.filter(isOld), ...templateStore(config).leftovers()]) {
    if (!dryRun) rmSync(path, { recursive: true, force: true });
    print(`${verb} ${path}\n`);
  }
  for (const message of [...errors.map(explain), ...failures]) log.warning(message);
  return failures.length + errors.length === 0 ? 0 : 1;
}

/** Whether the one who should delete it is dead: its supervisor before it could say how it ended, or the `husk run` in whose foreground it was. */
export function isAbandoned(record: ContainerRecord): boolean {
  const supervised = record.supervisor !== null && isAlive(record.supervisor);
  return record.status === "stopped" && !supervised && (record.foreground || record.exit?.reason === supervisorDied);
}

function isOld(path: string): boolean {
  const age = Date.now() - (statSync(path, { throwIfNoEntry: false })?.mtimeMs ?? Number.POSITIVE_INFINITY);
  return age > leftoverAfterMs;
}
