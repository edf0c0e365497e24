/** The supervisor's own log, ROOT/ID/supervisor.log: JSON lines by pino, with the container's id on each. */
import type { Logger } from "pino";

/**
 * Opens the log. pino is loaded here and not before: its 15 ms are spent while the VM boots. Writes are synchronous, since a supervisor that is killed
 * must not take its last lines with it.
 */
export async function openSupervisorLog(path: string, level: string, container: string): Promise<Logger> {
  const { pino } = await import("pino");
  return pino({ level, base: { pid: process.pid, container } }, pino.destination({ dest: path, sync: true, mode: 0o600 }));
}
