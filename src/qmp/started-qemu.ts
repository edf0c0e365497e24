/** A real QEMU for tests, paused, with nothing but what is asked for. */
import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { Duplex } from "node:stream";
import { text } from "node:stream/consumers";
import { QmpClient } from "./qmp.ts";

const running = new Set<ChildProcess>();

/** Starts one; `exit` resolves when it ends. Throws with what it said where it does not start. */
export async function startQemu(...extra: string[]): Promise<{ qmp: QmpClient; exit: Promise<unknown> }> {
  const args = ["-nodefaults", "-display", "none", "-S", "-chardev", "socket,id=qmp,fd=3", "-mon", "chardev=qmp,mode=control", ...extra];
  const qemu = spawn("qemu-system-x86_64", args, { stdio: ["ignore", "ignore", "pipe", "pipe"] });
  running.add(qemu);
  const exit = once(qemu, "exit").finally(() => running.delete(qemu));
  const stream = qemu.stdio[3];
  if (!(stream instanceof Duplex) || qemu.stderr === null) throw new Error("no pipe to QEMU");
  const complaint = text(qemu.stderr);
  try {
    return { qmp: await QmpClient.open(stream, { deadlineMs: 20_000 }), exit };
  } catch (cause) {
    throw new Error(`QEMU did not start: ${await complaint}`, { cause });
  }
}

/** Ends all that still run. */
export async function endQemus(): Promise<void> {
  for (const qemu of running) {
    const exit = once(qemu, "exit");
    if (qemu.kill("SIGKILL")) await exit;
  }
}
