/**
 * `delete`: cleans up after a task whose shim is gone, and says how it ended. containerd runs it after every task, with its shim alive or dead; nothing of the
 * shim, the guest or QEMU is needed for it.
 */
import { existsSync, lstatSync, readdirSync, readFileSync, rmSync } from "node:fs";
import { connect } from "node:net";
import { join } from "node:path";
import { DeleteResponse } from "../gen/containerd/task/v2/task.ts";
import { helperPath } from "../host/installation.ts";
import { unmountAll } from "../host/mounts.ts";
import { giveBackLedger, settleLedger } from "../sandbox/give-back.ts";
import { timestamp } from "../task/timestamp.ts";
import type { ShimCall } from "./arguments.ts";
import { shimFolder, socketPath } from "./shim-folder.ts";

/** Killed: all that can be said of a task nobody has seen the end of. */
const killed = 137;

export async function deleteShim({ id, bundle }: ShimCall): Promise<void> {
  const helper = helperPath();
  const address = readAddress(bundle);
  if (address !== undefined) {
    const folder = shimFolder(address);
    if (await isServed(address)) {
      // Of a sandbox that goes on: where the task's ledger is still there, its Create never ended, or it was not deleted.
      await settleLedger(join(folder, "tasks", `${id}.jsonl`), helper);
    } else {
      await giveBackAll(folder, helper);
      if (lstatSync(socketPath(address), { throwIfNoEntry: false })?.isSocket()) rmSync(socketPath(address), { force: true });
    }
  }
  const rootfs = join(bundle, "rootfs");
  if (existsSync(rootfs)) await unmountAll(helper, rootfs);
  const answer = { pid: 0, exitStatus: killed, exitedAt: timestamp(new Date()) };
  process.stdout.write(DeleteResponse.encode(answer).finish());
}

/** Everything of a shim that is dead. */
async function giveBackAll(folder: string, helper: string): Promise<void> {
  if (!existsSync(folder)) return;
  const tasks = join(folder, "tasks");
  for (const name of existsSync(tasks) ? readdirSync(tasks) : []) await giveBackLedger(join(tasks, name), helper);
  await giveBackLedger(join(folder, "sandbox.jsonl"), helper);
  rmSync(folder, { recursive: true, force: true });
}

function readAddress(bundle: string): string | undefined {
  try {
    return readFileSync(join(bundle, "address"), "utf8").trim();
  } catch {
    return undefined; // its `start` never got so far
  }
}

/** Whether somebody still listens there. */
function isServed(address: string): Promise<boolean> {
  return new Promise((resolve) => {
    const socket = connect({ path: socketPath(address) });
    socket.once("connect", () => {
      socket.destroy();
      resolve(true);
    });
    socket.once("error", () => resolve(false));
  });
}
