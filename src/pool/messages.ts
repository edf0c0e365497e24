/**
 * How the pool and its members talk: the pool starts each as `supervisor.js pool-member ORDER`, with descriptor 3 a socket pair, and is told, one JSON object
 * a line:
 *
 *     {"event":"ready"}      its sandbox waits, where it has one, and so does its socket
 *     {"event":"taken"}      from here on it is somebody's, and no member any more
 *     {"event":"settled"}    its container runs, or never will: the pool may go on to work for itself
 *
 * The end of the conversation is the pool's death to a member that waits, and nothing to one that was taken.
 */
import { boolean, integer, list, map, nonEmptyString, object, oneOf, optional, string } from "../narrow.ts";

/** The first word of a member's command line. */
export const poolMember = "pool-member";

/** What a member is to be. */
export interface MemberOrder {
  /** The pool's own folder, of sandboxes of one shape. */
  readonly folder: string;
  /** The member's own in it, and of its socket. */
  readonly name: string;
  /** What all machines of that shape are called: machineKey. */
  readonly key: string;
  /** Whether its container's files are the host's folders, at least some of them; or all in images. */
  readonly shares: boolean;
  /** Settings that the pool was given as flags: by their key, in words. */
  readonly settings: Readonly<Record<string, string>>;
  /** The cgroups in which it waits. */
  readonly cgroups: readonly string[];
  /** In which of the engine's namespaces its container will be, where that has some. */
  readonly engineNamespace?: string;
  /** It waits without a sandbox (Spare). */
  readonly spare?: boolean;
}

export const orderReader = object<MemberOrder>({
  folder: nonEmptyString,
  name: nonEmptyString,
  key: nonEmptyString,
  shares: boolean,
  settings: map(string),
  cgroups: list(nonEmptyString),
  engineNamespace: optional(nonEmptyString),
  spare: optional(boolean),
});

export type MemberEvent = "ready" | "taken" | "settled";

export const eventReader = object<{ event: MemberEvent }>({ event: oneOf(["ready", "taken", "settled"]) });

/** What a child of whoever takes a member would have of it by inheritance, and its command line. */
export interface Inherited {
  readonly words: readonly string[];
  readonly cwd: string;
  readonly umask: number;
  /** Names and values. */
  readonly environment: readonly (readonly string[])[];
}

/** Reads these in a request that has more. */
export const inheritedReaders = {
  words: list(string),
  cwd: nonEmptyString,
  umask: integer(0, 0o777),
  environment: list(list(string)),
};

/** What front asks a member for (guest-agent/helper/PROTOCOL.md). */
export interface TakeRequest extends Inherited {
  readonly session: "run" | "create";
  /** Which program front would start: see `programIdentity`. */
  readonly program: string;
  /** When the call began, in microseconds since 1970. */
  readonly began: number;
  /** Session has its form. */
  readonly hello: unknown;
}
