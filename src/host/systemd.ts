/** Whether this host was booted by systemd: sd_booted(3). */
import { existsSync } from "node:fs";

export function isSystemdHost(): boolean {
  return existsSync("/run/systemd/system");
}
