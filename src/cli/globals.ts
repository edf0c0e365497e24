/** The flags that stand before the verb. */
import { resolve } from "node:path";
import { HuskError } from "../errors.ts";
import { defaultRoot } from "../sandbox/run-folder.ts";
import type { FlagValues } from "./flags.ts";

export const globalFlags = {
  root: { kind: "text", value: "DIR", help: "where containers are kept (default: /run/husk; but for root: $XDG_RUNTIME_DIR/husk)" },
  log: { kind: "text", value: "[file:]FILE", help: "also write errors and warnings to this file" },
  "log-format": { kind: "text", value: "text|json", help: "the form of that file (default: text)" },
  debug: { kind: "switch", help: "say more, on standard error or in the log" },
  "systemd-cgroup": { kind: "switch", help: "have systemd make the cgroup: cgroupsPath is slice:prefix:name" },
  "cgroup-manager": { kind: "text", value: "NAME", help: "crun's words: cgroupfs, or systemd for --systemd-cgroup" },
  rootless: { kind: "text", value: "WORD", help: "accepted for runc's sake; without meaning here" },
  criu: { kind: "text", value: "FILE", help: "accepted for runc's sake; checkpoints are QEMU's" },
  "no-pivot": { kind: "switch", help: "accepted for crun's sake; without meaning in a virtual machine" },
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
  const manager = flags["cgroup-manager"] ?? "cgroupfs";
  if (manager === "disabled") {
    throw new HuskError("unsupported", "--cgroup-manager disabled is not supported: a sandbox is limited and accounted for by its cgroup");
  }
  if (manager !== "cgroupfs" && manager !== "systemd") {
    throw new HuskError("invalid-argument", `--cgroup-manager: expected cgroupfs or systemd, got ${JSON.stringify(manager)}`);
  }
  return {
    root: resolve(cwd, flags.root ?? defaultRoot()),
    log: flags.log === undefined ? undefined : resolve(cwd, logFile(flags.log)),
    logFormat,
    debug: flags.debug,
    systemdCgroup: flags["systemd-cgroup"] || manager === "systemd",
  };
}

/** The file that --log names: by its path, as with runc, or as crun has it, after "file:". */
function logFile(text: string): string {
  const [, backend = "", rest = text] = /^(file|journald|syslog):(.*)$/s.exec(text) ?? [];
  if (backend === "journald" || backend === "syslog") {
    throw new HuskError("unsupported", `--log ${backend}: is not supported: errors are written to a file, and to standard error`);
  }
  return rest;
}
