/**
 * A container's run folder, ROOT/ID/: its record, its sockets, its ledger and its logs. It appears with its record in it and disappears
 * as a whole, both by one rename, so nobody ever meets half of one.
 */
import { closeSync, constants, existsSync, mkdirSync, mkdtempSync, openSync, readdirSync, renameSync, rmSync } from "node:fs";
import { basename, dirname, join, resolve } from "node:path";
import { HuskError } from "../errors.ts";
import { identify } from "../host/process-identity.ts";
import { hasCode } from "../host/system-error.ts";

/** The files of a run folder; each exists only while it is needed. */
export interface RunFolder {
  readonly id: string;
  readonly path: string;
  /** The container's record (record.ts). */
  readonly state: string;
  /** The supervisor's control socket (control.ts). */
  readonly socket: string;
  readonly agentSocket: string;
  /** What the sandbox took from the host, and how to give it back (host/ledger.ts); all its containers have it (sandbox-home.ts). */
  readonly ledger: string;
  /** Likewise, of a container that joined another one's sandbox: what was taken for it alone. */
  readonly ownLedger: string;
  /** The guest's console. */
  readonly console: string;
  readonly supervisorLog: string;
}

/** The name of `RunFolder.ledger`. */
export const ledgerName = "ledger.jsonl";

/** Begins the names of folders that are being made or removed; no id has it, so they are never taken for a container. */
const passing = "~";

/** A file name's limit (NAME_MAX): runc's own bound of 1024 could never be made a folder. */
const longestId = 255;

/** Where run folders are unless --root says otherwise: as runc's, with XDG_RUNTIME_DIR honoured for users other than root. */
export function defaultRoot(
  euid: number = process.geteuid?.() ?? 0,
  xdgRuntimeDir: string | undefined = process.env["XDG_RUNTIME_DIR"],
): string {
  return euid !== 0 && xdgRuntimeDir !== undefined && xdgRuntimeDir !== "" ? join(xdgRuntimeDir, "husk") : "/run/husk";
}

/** Throws `invalid-argument` for an id that is no plain file name; the letters are those that runc takes. */
export function checkId(id: string): void {
  if (id === "") throw new HuskError("invalid-argument", "container id cannot be empty");
  if (!/^[\w+.-]+$/.test(id) || id === "." || id === "..") {
    throw new HuskError("invalid-argument", `invalid container ID format: ${JSON.stringify(id.slice(0, longestId))}`, {
      hint: "letters, digits and _ + - . are allowed",
    });
  }
  if (id.length > longestId)
    throw new HuskError("invalid-argument", `container id of ${id.length} characters: at most ${longestId} are possible`);
}

/** The paths of a container's run folder, whether or not it exists. Throws `invalid-argument` for an id that could lead elsewhere. */
export function runFolder(root: string, id: string): RunFolder {
  checkId(id);
  const path = join(resolve(root), id);
  return {
    id,
    path,
    state: join(path, "state.json"),
    socket: join(path, "sock"),
    agentSocket: join(path, "agent.sock"),
    ledger: join(path, ledgerName),
    ownLedger: join(path, "own-ledger.jsonl"),
    console: join(path, "console.log"),
    supervisorLog: join(path, "supervisor.log"),
  };
}

/**
 * Makes a container's run folder, mode 0700. `fill` writes its first files into the path it is given, before anybody else can see them.
 * Throws `already-exists` where the id is taken, `host` where the folder cannot be made.
 */
export function claimRunFolder(root: string, id: string, fill: (path: string) => void): RunFolder {
  const folder = runFolder(root, id);
  let draft: string | undefined;
  try {
    mkdirSync(resolve(root), { recursive: true, mode: 0o711 });
    draft = mkdtempSync(join(resolve(root), `${passing}new-${process.pid}-`)); // mode 0700, by mkdtemp(3)
    fill(draft);
    renameSync(draft, folder.path); // refused where the target is a folder that is not empty: a container's never is
  } catch (cause) {
    if (draft !== undefined) rmSync(draft, { recursive: true, force: true });
    if (hasCode(cause, "ENOTEMPTY", "EEXIST", "ENOTDIR") && existsSync(folder.path)) {
      throw new HuskError("already-exists", `container "${id}" already exists`);
    }
    throw new HuskError("host", `cannot make the run folder ${folder.path}`, { cause });
  }
  return folder;
}

/** Removes a run folder with all that is in it; one that is gone already is no error. */
export function removeRunFolder(folder: RunFolder): void {
  const grave = join(dirname(folder.path), `${passing}old-${process.pid}-${Date.now()}-${folder.id}`.slice(0, longestId));
  try {
    renameSync(folder.path, grave);
  } catch (cause) {
    if (hasCode(cause, "ENOENT")) return;
    throw new HuskError("host", `cannot remove the run folder ${folder.path}`, { cause });
  }
  rmSync(grave, { recursive: true, force: true });
}

/** Where this process's sandbox takes connections to localhost: beside the run folders, any of which may go before it. */
export function forwardSocket(root: string): string {
  return join(resolve(root), `${passing}forward-${process.pid}`);
}

/** The ids that have a run folder below `root`, sorted. A root that does not exist has none. */
export function listIds(root: string): string[] {
  return entries(root)
    .filter((name) => !name.startsWith(passing))
    .sort();
}

/** Folders of a claim or a removal that was interrupted, as absolute paths: husk gc removes them. */
export function listLeftovers(root: string): string[] {
  return entries(root)
    .filter((name) => name.startsWith(passing))
    .map((name) => join(resolve(root), name));
}

/** Those of them that are claims of processes which are dead. */
export function listDeadClaims(root: string): string[] {
  return listLeftovers(root).filter((path) => {
    const [, pid] = /^~new-(\d+)-/.exec(basename(path)) ?? [];
    return pid !== undefined && identify(Number(pid)) === undefined;
  });
}

/**
 * Calls `use` with a short path of a file that may have a long one: a unix socket's address holds 107 bytes, /proc/self/fd/N/NAME always
 * fits. The path holds until the returned function is called.
 */
export function shortPath(path: string): { readonly path: string; readonly release: () => void } {
  const folder = openSync(dirname(path), constants.O_RDONLY | constants.O_DIRECTORY);
  return { path: `/proc/self/fd/${folder}/${basename(path)}`, release: () => closeSync(folder) };
}

function entries(root: string): string[] {
  try {
    return readdirSync(resolve(root), { withFileTypes: true })
      .filter((entry) => entry.isDirectory())
      .map((entry) => entry.name);
  } catch (cause) {
    if (hasCode(cause, "ENOENT")) return [];
    throw new HuskError("host", `cannot list the containers in ${root}`, { cause });
  }
}
