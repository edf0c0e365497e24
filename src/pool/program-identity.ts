/** Which program a process runs, told apart from that of another installation, or of before an update (guest-agent/helper/src/programs.rs). */
import { statSync } from "node:fs";

/** DEVICE:INODE:NANOSECONDS, of the file's last change. Throws where it is not there. */
export function programIdentity(path: string): string {
  const { dev, ino, mtimeNs } = statSync(path, { bigint: true });
  return `${dev}:${ino}:${mtimeNs}`;
}
