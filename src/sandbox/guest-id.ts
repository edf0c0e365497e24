/** What the guest knows a container by. */
import { createHash } from "node:crypto";

/** The ids that the guest's agent takes (guest-agent/agent/src/sandbox.rs): fewer than the host, which takes whatever runc does and a folder can be named. */
const taken = /^[\w+-][\w+.-]{0,127}$/;

/** The container's id, or another name for one that the guest would not take: always the same for the same id. */
export function guestIdOf(id: string): string {
  return taken.test(id) ? id : createHash("sha256").update(id).digest("hex");
}
