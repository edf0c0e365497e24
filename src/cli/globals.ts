/** The flags that stand before the verb. */
import { resolve } from "node:path";
import { HuskError } from "../errors.ts";
import { defaultRoot } from "../sandbox/run-folder.ts";
import type { FlagValues } from "./flags.ts";

export const globalFlags = {
  root: { kind: "text", value: "DIR", help: "where containers are kept (default: /run/husk; others than root: $XDG_RUNTIME_DIR/husk)" },
  log: { kind: "text", value: "FILE", help: "also write errors and warnings to this file" },
  "log-format": { kind: "text", value: "text|json", help: "the form of that file (default: text)" },
  debug: { kind: "switch", help: "say more, on standard error or in the log" },
  "systemd-cgroup": { kind: "switch", help: "have systemd make the cgroup: cgroupsPath is slice:prefix:name" },
  rootless: { kind: "text", value: "WORD", help: "accepted for runc's sake; without meaning here" },
  version: { kind: "switch", short: "v", help: "print the version" },
  help: { kind: "switch", short: "h", help: "print help" },
} as const;

/** What the global flags say, checked. */
export interface Globals {
  /** Absolute. */
  readonly root: string;
  /** Where errors are logged besides standard error; absolute. */
  readonly log: string | undefined;
  readonly logFormat: "text" | "json";
  readonly debug: boolean;
  /** Whether systemd makes a new container's cgroup. What has been made once is remembered: other verbs do not ask. */
  readonly systemdCgroup: boolean;
}

/** `cwd`: what relative paths begin with. Throws `invalid-argument` or `unsupported`. */
export function readGlobals(flags: FlagValues<typeof globalFlags>, cwd: string): Globals {
  const logFormat = flags["log-format"] ?? "text";
  if (logFormat !== "text" && logFormat !== "json") {
    throw new HuskError("invalid-argument", `--log-format: expected text or json, got ${JSON.stringify(logFormat)}`);
  }
  const log = flags.log === undefined ? undefined : resolve(cwd, flags.log);
  return { root: resolve(cwd, flags.root ?? defaultRoot()), log, logFormat, debug: flags.debug, systemdCgroup: flags["systemd-cgroup"] };
}
