/**
 * The removal of a container by whoever asks for it, from what is on disk: neither the guest, nor QEMU, nor a living supervisor is needed.
 *
 *     delete ── the container is killed ── its supervisor ends, ──┐
 *               (who does not obey is     or lets go of it, since │
 *                killed in turn)          it has others as well   ├── ledgers given back ── poststop hooks ── run folder removed
 *     gc ────── the supervisor is dead already ───────────────────┘
 */
import { existsSync, statSync } from "node:fs";
import { explain, HuskError } from "../errors.ts";
import { comesTrue } from "../host/comes-true.ts";
import { runPoststop } from "../host/hooks.ts";
import { type GiveBackOptions, giveBack, type LedgerEntry, readLedger } from "../host/ledger.ts";
import { isAlive, type ProcessIdentity, signalProcess } from "../host/process-identity.ts";
import { demand } from "../oci/state.ts";
import { type ContainerRecord, hookState, readRecord } from "./record.ts";
import { type RunFolder, removeRunFolder, runFolder } from "./run-folder.ts";

/** In milliseconds: how long a supervisor may take to have the guest kill the container, and then to end by itself; if not, it is killed. */
const patience = { killMs: 1_500, endMs: 3_000 };

/** Of one with other containers, which would be killed with it: longer than it gives its guest (deadlines), which it ends where that does not answer. */
const patienceForOthers = { killMs: 15_000, endMs: 60_000 };

/** How long a killed process may take to vanish, in milliseconds: the kernel has its memory to free. */
const vanishWithinMs = 2_000;

export interface RemovalOptions extends GiveBackOptions {
  /** Told what goes wrong but keeps nothing from being removed: a poststop hook that fails. */
  readonly warn: (message: string) => void;
}

/**
 * Deletes a container. Without `force` it must be stopped, or created and never started (runc's rule). With it, an unknown container is no
 * error, and one whose record is damaged is removed as far as its ledger tells.
 * Throws `not-found`, `wrong-state`, and `host` where something could not be given back: the run folder stays then.
 */
export async function deleteContainer(root: string, id: string, force: boolean, options: RemovalOptions): Promise<void> {
  const folder = runFolder(root, id);
  const record = readForRemoval(root, id, force);
  if (record === "unknown") return;
  if (record !== "damaged") {
    if (!force) demand("delete", id, record.status);
    if (record.supervisor !== null) await endSupervisor(root, record, record.supervisor);
  }
  // Whether a sandbox with others goes on, only a record can tell.
  const unsure = record === "damaged" && hasOthers(folder);
  const entries = readForced(() => (unsure ? readLedger(folder.ownLedger) : readLedgers(folder)), force, options);
  await removeRemains(folder, record === "damaged" ? undefined : record, entries, options);
}

/** What is to be given back with a container whose supervisor is gone, or has let go of it: what was taken for it, and for its sandbox unless that goes on. */
export function readLedgers({ ownLedger, ledger }: RunFolder): LedgerEntry[] {
  return [...readLedger(ownLedger), ...readLedger(ledger)];
}

/**
 * Gives back what is in `entries`, the container's ledger, runs its poststop hooks, and removes its run folder. Its supervisor must be gone;
 * what the supervisor has removed itself is no error. Throws `host` where something could not be given back.
 */
export async function removeRemains(
  folder: RunFolder,
  record: ContainerRecord | undefined,
  entries: readonly LedgerEntry[],
  options: RemovalOptions,
): Promise<void> {
  const [failure] = await giveBack(entries, options);
  if (failure !== undefined) throw failure;
  // A run in the foreground has run them itself by the time its folder is gone.
  if (record !== undefined && existsSync(folder.path))
    await runPoststop(record.poststop, hookState(record, "stopped"), record.bundle, options.warn);
  removeRunFolder(folder);
}

/** What is in the ledgers; nothing where one is damaged and the container is to go all the same. */
function readForced(readAll: () => readonly LedgerEntry[], force: boolean, options: RemovalOptions): readonly LedgerEntry[] {
  try {
    return readAll();
  } catch (error) {
    if (!force) throw error;
    options.warn(explain(error));
    return [];
  }
}

function readForRemoval(root: string, id: string, force: boolean): ContainerRecord | "unknown" | "damaged" {
  try {
    return readRecord(root, id);
  } catch (error) {
    if (!force || !(error instanceof HuskError) || (error.code !== "not-found" && error.code !== "internal")) throw error;
    return error.code === "not-found" ? "unknown" : "damaged";
  }
}

/** Sees the container's supervisor to its end: by killing the container, and where that does not do, the supervisor and all it holds. */
async function endSupervisor(root: string, record: ContainerRecord, supervisor: ProcessIdentity): Promise<void> {
  if (!isAlive(supervisor)) return;
  const shared = hasOthers(runFolder(root, record.id));
  const { killMs, endMs } = shared ? patienceForOthers : patience;
  const ending = record.status === "stopped" || (await killContainer(root, record.id, shared ? "delete" : "kill", killMs));
  const hasLetGo = (): boolean => !isAlive(supervisor) || (shared && !holds(root, record.id));
  if (await comesTrue(hasLetGo, ending ? endMs : 0)) return;
  signalProcess(supervisor, "SIGKILL");
  if (await vanishes(supervisor)) return;
  throw new HuskError("host", `the supervisor of container "${record.id}", process ${supervisor.pid}, was killed and does not end`);
}

/** Whether other containers are in the container's sandbox: each has a link to its ledger. */
function hasOthers({ ledger }: RunFolder): boolean {
  return (statSync(ledger, { throwIfNoEntry: false })?.nlink ?? 0) > 1;
}

/** Whether the container has not been let go by a supervisor that goes on for others. */
function holds(root: string, id: string): boolean {
  try {
    return readRecord(root, id).supervisor !== null;
  } catch (error) {
    if (error instanceof HuskError && error.code === "not-found") return false; // removed meanwhile
    throw error;
  }
}

/** Has the supervisor kill the container. False where it, or its guest, cannot. */
async function killContainer(root: string, id: string, method: "kill" | "delete", deadlineMs: number): Promise<boolean> {
  const { ControlClient } = await import("./control-client.ts");
  try {
    using client = await ControlClient.connect(root, id);
    await client.call(method, { signal: 9, all: false }, { deadlineMs });
    return true;
  } catch (error) {
    if (!(error instanceof HuskError)) throw error;
    return error.code === "wrong-state"; // stopped, since we looked
  }
}

/** Whether a process ends in time: one whose connections have ended may be about to. */
export function vanishes(process: ProcessIdentity): Promise<boolean> {
  return comesTrue(() => !isAlive(process), vanishWithinMs);
}
