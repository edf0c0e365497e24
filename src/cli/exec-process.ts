/** The process that `husk exec` asks for: from a file, or from the container's own with what the flags change, as runc does it. */
import { HuskError } from "../errors.ts";
import { loadBundle, loadProcess } from "../oci/bundle.ts";
import { guestProcess } from "../oci/guest-spec.ts";
import { judgeProcess, refuseUnsupported } from "../oci/support.ts";
import type { Capabilities, Process, User } from "../oci/types.ts";
import type { ExecOptions, ExecUser } from "./session-options.ts";

export interface ExecProcess {
  /** As the agent gets it. */
  readonly process: Process;
  readonly terminal: boolean;
  /** What is worth a line in the log. */
  readonly notes: readonly string[];
}

/** Builds and checks the process. `bundle`: that of the container. Throws `invalid-argument` or `unsupported`. */
export async function execProcess(options: ExecOptions, bundle: string): Promise<ExecProcess> {
  const { process, name, unknown } = await basis(options, bundle);
  const terminal = process.terminal === true;
  if (terminal && options.detach && options.consoleSocket === undefined) {
    throw new HuskError("invalid-argument", "a terminal in the background needs --console-socket");
  }
  if (!terminal && options.consoleSocket !== undefined) {
    throw new HuskError("invalid-argument", "--console-socket is for a process with a terminal, and this one has none");
  }
  const found = refuseUnsupported(judgeProcess(process), name);
  const notes = options.process === undefined ? [] : found; // what is in config.json was told of at the container's creation
  const named = options.process === undefined && options.user !== undefined && "name" in options.user ? options.user.name : undefined;
  return {
    process: withUserName(guestProcess(process), named),
    terminal,
    notes: [...notes, ...unknown.map((path) => `${name}: ${path} is no property of the runtime spec and was ignored`)],
  };
}

async function basis(options: ExecOptions, bundle: string): Promise<{ process: Process; name: string; unknown: readonly string[] }> {
  if (options.process !== undefined) {
    const { value, unknown } = await loadProcess(options.process);
    return { process: value, name: options.process, unknown };
  }
  const { spec } = await loadBundle(bundle);
  return { process: overridden(spec.process, options), name: "config.json", unknown: [] };
}

/** The container's process with what the flags say. */
export function overridden(process: Process, options: ExecOptions): Process {
  const { consoleSize: _size, ...rest } = process; // of the container's terminal, not of this one's
  return {
    ...rest,
    args: options.args,
    terminal: options.tty,
    env: [...(process.env ?? []), ...options.env],
    cwd: options.cwd ?? process.cwd,
    user: changedUser(process.user, options.user, options.additionalGids),
    ...(options.caps.length === 0 ? {} : { capabilities: withCapabilities(process.capabilities, options.caps) }),
    ...(options.noNewPrivileges ? { noNewPrivileges: true } : {}),
  };
}

function changedUser(user: User, asked: ExecUser | undefined, additionalGids: readonly number[]): User {
  const ids = asked === undefined || "name" in asked ? {} : { uid: asked.uid, gid: asked.gid ?? user.gid };
  return { ...user, ...ids, additionalGids: [...(user.additionalGids ?? []), ...additionalGids] };
}

/** Into every set but the inheritable one, which runc has left alone since CVE-2022-29162. */
function withCapabilities(capabilities: Capabilities = {}, added: readonly string[]): Capabilities {
  const join = (set: readonly string[] = []): readonly string[] => [...new Set([...set, ...added])];
  return {
    ...capabilities,
    bounding: join(capabilities.bounding),
    effective: join(capabilities.effective),
    permitted: join(capabilities.permitted),
    ambient: join(capabilities.ambient),
  };
}

/** The agent looks the name up in the container's files; one in a document is Windows' own and means nothing. */
function withUserName(process: Process, name: string | undefined): Process {
  const { username: _windows, ...user } = process.user;
  return { ...process, user: name === undefined ? user : { ...user, username: name } };
}
