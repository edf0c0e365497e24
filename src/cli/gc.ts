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
import { type ContainerRecord, listRecords, readRecord, supervisorDied } from "../sandbox/record.ts";
import { readLedgers, removeRemains, vanishes } from "../sandbox/removal.ts";
import { listDeadClaims, listLeftovers, runFolder } from "../sandbox/run-folder.ts";
import type { Invocation } from "./command-line.ts";
import { removalOptions } from "./delete.ts";
import type { Log } from "./log.ts";
import { print } from "./output.ts";

/** A claim or a removal takes moments; a folder of one that is older than this was left by a process that died. In milliseconds. */
const leftoverAfterMs = 60_000;

/** Answers 1 where something could not be removed. */
export async function gc({ globals, flags }: Invocation<"gc">, log: Log): Promise<number> {
  const { "dry-run": dryRun, container: only } = flags;
  const [verb, failures] = [dryRun ? "would remove" : "removed", [] as string[]];
  const listed = listRecords(globals.root);
  const errors = only === undefined ? listed.errors : [];
  const records = only === undefined ? listed.records : await ofTheDead(globals.root, only);
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
  if (only === undefined) await collectShared(globals.root, dryRun);
  else if (!dryRun) for (const path of listDeadClaims(globals.root)) rmSync(path, { recursive: true, force: true }); // it may have died over its claim
  for (const message of [...errors.map(explain), ...failures]) log.warning(message);
  return failures.length + errors.length === 0 ? 0 : 1;
}

/** The record of that container, if there is one, once its supervisor has vanished: it may be on its way out. */
async function ofTheDead(root: string, id: string): Promise<readonly ContainerRecord[]> {
  try {
    const { supervisor } = readRecord(root, id);
    if (supervisor !== null) await vanishes(supervisor);
    return [readRecord(root, id)];
  } catch (error) {
    if (error instanceof HuskError && error.code === "not-found") return [];
    throw error;
  }
}

/** Removes what is no container's: dead pools, drafts of templates, and folders that somebody died over. */
async function collectShared(root: string, dryRun: boolean): Promise<void> {
  const verb = dryRun ? "would remove" : "removed";
  const { config } = await loadConfig({ env: process.env });
  const pools = poolRoot(process.env);
  for (const { folder } of pools === undefined ? [] : listPools(pools).filter(({ alive }) => !alive)) {
    if (!dryRun) await removeDeadPool(folder, helperPath());
    print(`${verb} ${folder.path}\n`);
  }
  const passing = [...listLeftovers(root), ...(pools === undefined ? [] : poolLeftovers(pools))];
  for (const path of [...passing.filter(isOld), ...templateStore(config).leftovers()]) {
    if (!dryRun) rmSync(path, { recursive: true, force: true });
    print(`${verb} ${path}\n`);
  }
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
