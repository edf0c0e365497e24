/** The options of run, create and exec, checked: what the flags' table cannot say. */
import { resolve } from "node:path";
import { HuskError } from "../errors.ts";
import { checkId } from "../sandbox/run-folder.ts";
import type { CommandLine, Invocation } from "./command-line.ts";
import { meaninglessCriuFlags, refuseCriuFlags } from "./criu-flags.ts";
import type { Globals } from "./globals.ts";
import { helpText } from "./help.ts";
import { versionText } from "./version-text.ts";

export interface CreateOptions {
  readonly globals: Globals;
  readonly id: string;
  /** Absolute. */
  readonly bundle: string;
  readonly pidFile: string | undefined;
  readonly pidfdSocket: string | undefined;
  readonly consoleSocket: string | undefined;
  /** undefined: as the configuration says. */
  readonly accel: "auto" | "kvm" | "tcg" | undefined;
  readonly trace: boolean;
  /** Flags that were given and mean nothing here; to be logged. */
  readonly meaningless: readonly string[];
}

export interface RunOptions extends CreateOptions {
  readonly detach: boolean;
  readonly keep: boolean;
}

export interface RestoreOptions extends CreateOptions {
  readonly detach: boolean;
  /** Absolute. */
  readonly imagePath: string;
}

/** Who a program runs as: in numbers (no group: that of the container's own process), or in names for the guest to look up. */
export type ExecUser = { readonly uid: number; readonly gid: number | undefined } | { readonly name: string };

export interface ExecOptions {
  readonly globals: Globals;
  readonly id: string;
  /** The program and its arguments; empty where `process` names a file. */
  readonly args: readonly string[];
  readonly process: string | undefined;
  readonly tty: boolean;
  readonly user: ExecUser | undefined;
  readonly additionalGids: readonly number[];
  readonly env: readonly string[];
  readonly cwd: string | undefined;
  readonly caps: readonly string[];
  readonly noNewPrivileges: boolean;
  readonly detach: boolean;
  readonly ignorePaused: boolean;
  /** Below the container's; undefined: the container's own. */
  readonly cgroup: string | undefined;
  readonly pidFile: string | undefined;
  readonly pidfdSocket: string | undefined;
  readonly consoleSocket: string | undefined;
  readonly meaningless: readonly string[];
}

/** What a session was asked for: text to print and nothing else, or the verb's options. */
export type SessionCall =
  | { readonly verb: "print"; readonly text: string }
  | ({ readonly verb: "run" } & RunOptions)
  | ({ readonly verb: "create" } & CreateOptions)
  | ({ readonly verb: "restore" } & RestoreOptions)
  | ({ readonly verb: "exec" } & ExecOptions);

/** The options in a command line that has been read. `cwd`: what relative paths begin with. Throws `invalid-argument` or `unsupported`. */
export function sessionCall(line: CommandLine, cwd = "."): SessionCall {
  switch (line.verb) {
    case "help":
      return { verb: "print", text: helpText(line.of) };
    case "version":
      return { verb: "print", text: versionText() };
    case "run":
      return { verb: "run", ...createOptions(line, cwd), detach: line.flags.detach, keep: line.flags.keep };
    case "create":
      return { verb: "create", ...createOptions(line, cwd) };
    case "restore":
      return { verb: "restore", ...restoreOptions(line, cwd) };
    case "exec":
      return { verb: "exec", ...execOptions(line, cwd) };
    default:
      throw new HuskError("internal", `"${line.verb}" is no session`);
  }
}

function createOptions(
  { globals, flags, operands }: Invocation<"run"> | Invocation<"create"> | Invocation<"restore">,
  cwd: string,
): CreateOptions {
  const [id = ""] = operands;
  checkId(id);
  checkPreserveFds(flags["preserve-fds"]);
  return {
    globals,
    id,
    bundle: resolve(cwd, flags.bundle ?? "."),
    pidFile: absolute(cwd, flags["pid-file"]),
    pidfdSocket: absolute(cwd, flags["pidfd-socket"]),
    consoleSocket: absolute(cwd, flags["console-socket"]),
    accel: parseAccel(flags.accel),
    trace: flags.trace,
    meaningless: given(
      ["--no-pivot", flags["no-pivot"]],
      ["--no-new-keyring", flags["no-new-keyring"]],
      ["--no-subreaper", flags["no-subreaper"]],
    ),
  };
}

function restoreOptions(line: Invocation<"restore">, cwd: string): RestoreOptions {
  const { flags } = line;
  refuseCriuFlags(flags, ["lazy-pages", "auto-dedup"]);
  const options = createOptions(line, cwd);
  return {
    ...options,
    detach: flags.detach,
    imagePath: resolve(cwd, flags["image-path"] ?? "checkpoint"),
    meaningless: [...options.meaningless, ...meaninglessCriuFlags(flags, ["lsm-profile", "lsm-mount-context"])],
  };
}

function execOptions({ globals, flags, operands }: Invocation<"exec">, cwd: string): ExecOptions {
  const [id = "", ...args] = operands;
  checkId(id);
  checkPreserveFds(flags["preserve-fds"]);
  if (flags.process === undefined && args.length === 0) {
    throw new HuskError("invalid-argument", "exec needs a program to run, or --process FILE", {
      hint: "husk exec [flags] <container-id> <program> [argument...]",
    });
  }
  if (flags["console-socket"] !== undefined && flags.process === undefined && !flags.tty) {
    throw new HuskError("invalid-argument", "--console-socket needs --tty: a program without a terminal has no console");
  }
  const unnamed = flags.env.find((variable) => variable.indexOf("=") < 1);
  if (unnamed !== undefined) throw new HuskError("invalid-argument", `--env: expected NAME=VALUE, got ${JSON.stringify(unnamed)}`);
  return {
    globals,
    id,
    args,
    process: absolute(cwd, flags.process),
    tty: flags.tty,
    user: flags.user === undefined ? undefined : parseUser(flags.user),
    additionalGids: flags["additional-gids"].map((gid) => parseNumericId("--additional-gids", gid)),
    env: flags.env,
    cwd: flags.cwd,
    caps: flags.cap,
    noNewPrivileges: flags["no-new-privs"],
    detach: flags.detach,
    ignorePaused: flags["ignore-paused"],
    cgroup: flags.cgroup,
    pidFile: absolute(cwd, flags["pid-file"]),
    pidfdSocket: absolute(cwd, flags["pidfd-socket"]),
    consoleSocket: absolute(cwd, flags["console-socket"]),
    meaningless: given(["--apparmor", flags.apparmor !== undefined], ["--process-label", flags["process-label"] !== undefined]),
  };
}

/** UID, UID:GID, or names in their places: those of the container's own users, whose files only the guest reads. */
function parseUser(text: string): ExecUser {
  const [user = "", group] = text.split(/:(.*)/s);
  if (/^\d+$/.test(user) && (group === undefined || /^\d+$/.test(group))) {
    return { uid: parseNumericId("--user", user), gid: group === undefined ? undefined : parseNumericId("--user", group) };
  }
  if (user === "" || group === "" || text.includes("\0") || text.length > 256) {
    throw new HuskError("invalid-argument", `--user: expected USER or USER:GROUP, got ${JSON.stringify(text.slice(0, 256))}`);
  }
  return { name: text };
}

function parseNumericId(flag: string, text: string): number {
  const id = Number(text);
  // 2^32 - 1 is "no user" to the kernel.
  if (/^\d{1,10}$/.test(text) && id < 2 ** 32 - 1) return id;
  throw new HuskError("invalid-argument", `${flag}: expected a number below 4294967295, got ${JSON.stringify(text)}`);
}

function parseAccel(text: string | undefined): CreateOptions["accel"] {
  if (text === undefined || text === "auto" || text === "kvm" || text === "tcg") return text;
  throw new HuskError("invalid-argument", `--accel: expected kvm, tcg or auto, got ${JSON.stringify(text)}`);
}

function checkPreserveFds(count: number | undefined): void {
  if (count !== undefined && count > 0) {
    throw new HuskError("unsupported", `--preserve-fds ${count}: open files of the host cannot be passed into a virtual machine`);
  }
}

function absolute(cwd: string, path: string | undefined): string | undefined {
  return path === undefined ? undefined : resolve(cwd, path);
}

function given(...flags: readonly (readonly [string, boolean])[]): string[] {
  return flags.flatMap(([name, isGiven]) => (isGiven ? [name] : []));
}
