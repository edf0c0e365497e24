/** Stand-ins that carry no streams: those of tasks, which nobody in the foreground waits for. */
import { spawn } from "node:child_process";
import { HuskError } from "../errors.ts";
import { deferred } from "./deferred.ts";

export interface StandInProcess {
  /** Rejects where it could not be started; never resolves. Otherwise, its end shows at the control socket. */
  readonly failed: Promise<never>;
  /** Resolves when it has ended. */
  readonly ended: Promise<void>;
}

/** Starts a stand-in that dials the control socket `socket` with `token` (guest-agent/helper/PROTOCOL.md, "stand-in"). */
export function startStandIn(helper: string, socket: string, token: string): StandInProcess {
  const child = spawn(helper, ["stand-in", "--socket", socket, "--token", token], { stdio: "ignore", env: {} });
  const failed = deferred<never>();
  const ended = new Promise<void>((resolve) => {
    child.once("exit", () => resolve());
    child.once("error", (cause) => {
      failed.reject(new HuskError("host", `cannot start ${helper}`, { cause }));
      resolve();
    });
  });
  return { failed: failed.promise, ended };
}
