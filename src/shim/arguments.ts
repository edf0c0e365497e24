/** The arguments of the shim's programs: containerd's own, as its front passes them on. */
import { HuskError } from "../errors.ts";

const actions = ["serve", "delete", "info"] as const;

export interface ShimCall {
  readonly action: (typeof actions)[number];
  readonly namespace: string;
  /** Of containerd's GRPC socket. */
  readonly address: string;
  readonly publishBinary: string;
  /** Of the task. */
  readonly id: string;
  /** Absolute. */
  readonly bundle: string;
  /** Of the shim's own socket; for `serve`. */
  readonly socket: string;
  readonly debug: boolean;
}

const texts = ["namespace", "address", "publish-binary", "id", "bundle", "group", "socket"] as const;

/** Throws `invalid-argument`. */
export function parseShim(words: readonly string[]): ShimCall {
  const values = new Map<string, string>();
  let action: ShimCall["action"] | undefined;
  let debug = false;
  for (const rest = [...words]; rest.length > 0; ) {
    const word = rest.shift() ?? "";
    const [, name = "", value] = /^--?([^=]+)(?:=(.*))?$/s.exec(word) ?? [];
    if (name === "") action = actions.find((known) => known === word) ?? unknown(word);
    else if (name === "debug") debug = value !== "false";
    else if (name === "info") action = "info";
    else if (texts.some((text) => text === name)) values.set(name, value ?? rest.shift() ?? unknown(word));
    else unknown(word);
  }
  const value = (name: (typeof texts)[number]): string => values.get(name) ?? "";
  return {
    action: action ?? unknown("no action"),
    namespace: value("namespace"),
    address: value("address"),
    publishBinary: value("publish-binary"),
    id: value("id"),
    bundle: value("bundle") === "" ? process.cwd() : value("bundle"),
    socket: value("socket"),
    debug,
  };
}

function unknown(word: string): never {
  throw new HuskError("invalid-argument", `expected serve, delete or info with containerd's flags, got ${JSON.stringify(word)}`);
}
