/**
 * Where a sandbox of the command line keeps what is its own and no container's: in the run folders of its containers, each of which has the same files by a
 * hard link. So they last as long as one of the folders does, and whoever removes the last container without a supervisor finds what there is to give back.
 */
import { linkSync, rmSync, writeFileSync } from "node:fs";
import { basename, join } from "node:path";
import { HuskError } from "../errors.ts";
import { ledgerName, type RunFolder } from "./run-folder.ts";

/** Puts the sandbox's files into the run folder of its first container, which is being made at `path`: they are there for the others to link. */
export function foundHome(path: string): void {
  writeFileSync(join(path, ledgerName), "", { mode: 0o600 });
}

export class SandboxHome {
  readonly #folders: RunFolder[];

  /** `first`: that of the container for which the sandbox is launched. */
  constructor(first: RunFolder) {
    this.#folders = [first];
  }

  /** The sandbox's ledger, by one of its names: each holds until the container that it belongs to has left. */
  get ledger(): string {
    return this.#home.ledger;
  }

  /** Puts the sandbox's files into the run folder of another container, which is being made at `path`. */
  furnish(path: string): void {
    const { ledger, console } = this.#home;
    for (const file of [ledger, console]) linkSync(file, join(path, basename(file)));
  }

  add(folder: RunFolder): void {
    this.#folders.push(folder);
  }

  /** The sandbox goes on without that container, whose folder its owner may remove from now on: the ledger in it is not the owner's to give back. */
  leave(folder: RunFolder): void {
    this.#folders.splice(this.#folders.indexOf(folder), 1);
    rmSync(folder.ledger, { force: true });
  }

  get #home(): RunFolder {
    const [home] = this.#folders;
    if (home === undefined) throw new HuskError("internal", "the sandbox has no container any more");
    return home;
  }
}
