/** Namespaces of the host: whether a process sees it as this one does, and keeping one. */
import { closeSync, constants, openSync, readlinkSync, statfsSync, statSync } from "node:fs";
import { HuskError } from "../errors.ts";

/** The file system of namespaces (NSFS_MAGIC of the kernel's include/uapi/linux/magic.h). */
export const nsfsMagic = 0x6e73_6673;

const namespaces = ["mnt", "pid", "net", "ipc", "uts", "user", "cgroup"] as const;

/** Whether a process has this one's namespaces and root, as front demands it of whoever serves in the place of its child. False where it has ended. */
export function standsBeside(pid: number): boolean {
  try {
    const [theirs, ours] = [statSync(`/proc/${pid}/root`), statSync("/proc/self/root")];
    const isSame = (name: string): boolean => readlinkSync(`/proc/${pid}/ns/${name}`) === readlinkSync(`/proc/self/ns/${name}`);
    return theirs.dev === ours.dev && theirs.ino === ours.ino && namespaces.every(isSame);
  } catch {
    return false; // it has ended, or is another user's
  }
}

/** A network namespace that stays as long as it is held, whatever becomes of the path that it was found by. */
export class HeldNetwork {
  readonly #descriptor: number;

  /** Throws `host` where there is nothing at the path, and `invalid-argument` where it is no namespace. */
  constructor(path: string) {
    try {
      // Without O_NONBLOCK, a FIFO would hold us for ever.
      this.#descriptor = openSync(path, constants.O_RDONLY | constants.O_NONBLOCK | constants.O_NOCTTY);
    } catch (cause) {
      throw new HuskError("host", `cannot open the network namespace ${path}`, { cause });
    }
    if (statfsSync(this.path).type === nsfsMagic) return;
    this.release();
    throw new HuskError("invalid-argument", `${path} is no network namespace`);
  }

  /** A path of it for any process of the host. */
  get path(): string {
    return `/proc/${process.pid}/fd/${this.#descriptor}`;
  }

  release(): void {
    closeSync(this.#descriptor);
  }
}
