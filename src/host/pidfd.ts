/** --pidfd-socket: who listens there is sent the pidfd of a process, as runc does it. */
import { callHelper } from "./helper-call.ts";

/** Sends that of `pid`. Throws `host`. */
export async function sendPidfd(helper: string, pid: number, socket: string): Promise<void> {
  await callHelper(helper, {
    args: ["pidfd", "--pid", String(pid), "--socket", socket],
    input: "",
    failure: `cannot send the pidfd of process ${pid}`,
  });
}
