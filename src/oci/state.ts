/**
 * The life of a container as the OCI runtime specification and runc's users know it, as data: which state allows which operation, and
 * the words for those that it does not allow. The words are runc's where engines recognise errors by them ("container not running").
 */
import { HuskError } from "../errors.ts";

export const statuses = ["creating", "created", "running", "paused", "stopped"] as const;

export type Status = (typeof statuses)[number];

export type Operation = "start" | "kill" | "delete" | "exec" | "pause" | "resume" | "update" | "ps" | "checkpoint";

/**
 * Which states a container can be in for an operation. `delete` is the one without --force; as with runc, it takes a container that was
 * created and never started, too, and kills it. `exec` in a paused one needs --ignore-paused;
 * in a created one it joins what `create` has made, as with runc.
 */
const allowed = {
  start: ["created"],
  kill: ["created", "running", "paused"],
  delete: ["created", "stopped"],
  exec: ["created", "running"],
  pause: ["running"],
  resume: ["paused"],
  update: ["created", "running", "paused"],
  ps: ["created", "running", "paused"],
  checkpoint: ["running", "paused"],
} as const satisfies Record<Operation, readonly Status[]>;

/** Where a container can get to from each state; "stopped" is the end. */
const next = {
  creating: ["created", "stopped"],
  created: ["running", "stopped"],
  running: ["paused", "stopped"],
  paused: ["running", "stopped"],
  stopped: [],
} as const satisfies Record<Status, readonly Status[]>;

export function can(operation: Operation, status: Status): boolean {
  return (allowed[operation] as readonly Status[]).includes(status);
}

export const canStart = (status: Status): boolean => can("start", status);
export const canKill = (status: Status): boolean => can("kill", status);
export const canDelete = (status: Status): boolean => can("delete", status);
export const canExec = (status: Status): boolean => can("exec", status);
export const canPause = (status: Status): boolean => can("pause", status);
export const canResume = (status: Status): boolean => can("resume", status);

export function canBecome(from: Status, to: Status): boolean {
  return (next[from] as readonly Status[]).includes(to);
}

/** Throws the error with code "wrong-state" where the container's state does not allow the operation. */
export function demand(operation: Operation, id: string, status: Status): void {
  if (!can(operation, status)) throw new HuskError("wrong-state", refusal(operation, id, status));
}

/** The state after a change. Throws an internal error where there is no such way: the caller is wrong then, not the user. */
export function become(from: Status, to: Status): Status {
  if (!canBecome(from, to)) throw new HuskError("internal", `a container that is ${from} cannot become ${to}`);
  return to;
}

function refusal(operation: Operation, id: string, status: Status): string {
  switch (operation) {
    case "start":
      if (status === "stopped") return `cannot start a container that has stopped: ${id}`;
      if (status === "creating") return `cannot start a container that is still being created: ${id}`;
      return `cannot start an already running container: ${id}`;
    case "kill":
      return status === "stopped" ? `container not running: ${id}` : `cannot kill a container that is still being created: ${id}`;
    case "delete":
      return `cannot delete container ${id} that is not stopped: ${status}`;
    case "exec":
      if (status === "paused") return `cannot exec in a paused container: ${id} (use --ignore-paused)`;
      return status === "stopped"
        ? `cannot exec in a stopped container: ${id}`
        : `cannot exec in a container that is still being created: ${id}`;
    case "checkpoint":
      return `container ${id} cannot be checkpointed in ${status} state`;
    case "resume":
      return `container not paused: ${id}: ${status}`;
    case "pause":
    case "update":
    case "ps":
      break;
  }
  return `container not running: ${id}: ${status}`;
}
