/** Who tells OpenTelemetry of the command line's calls. */
import { Teller } from "../sandbox/telling.ts";
import type { Trace } from "../sandbox/trace.ts";
import { parentOf } from "../telemetry/telemetry.ts";
import type { Log } from "./log.ts";

/** The caller's environment says whether somebody wants to know, and of what the call is a part. */
export function tellerOf(container: string, trace: Trace, log: Log): Teller {
  const warn = (message: string): void => {
    try {
      log.warning(message);
    } catch {
      // the engine has taken its log away with the container
    }
  };
  return new Teller({ trace, container, parent: parentOf(process.env), warn });
}
