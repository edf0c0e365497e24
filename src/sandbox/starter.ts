/** Whom a supervisor works for. */
import type { Socket } from "node:net";
import type { ControlHandlers, Params } from "./control.ts";
import type { Supervisor } from "./supervisor.ts";

/** Who started the supervisor, and lends or forks the stand-in. */
export interface Starter {
  /** Lets the stand-in dial `socket` and show `token`. */
  readonly attach: (socket: string, token: string) => void;
  /** Takes what is worth a warning in the log. */
  readonly warn: (message: string) => void;
  /** Whether the caller itself is the stand-in: then what husk has to say is said by the stand-in, and by nobody else. */
  readonly isStandIn: boolean;
  /** Whether the container is started as soon as it is created, so that nobody adds to its network in between. */
  readonly startsAtOnce: boolean;
  /** Does what starts the container after its creation, and tells of it whoever wants to know. */
  readonly tellStart: (start: () => Promise<void>) => Promise<void>;
  /** Serves a session that came by the control socket: `request` is its first line. `call` carries out what that socket's clients may call. */
  readonly serveSession: (request: Params, front: Socket, supervisor: Supervisor, call: ControlHandlers["call"]) => void;
}
