/** What `husk doctor` sees of the host, so that a test can be another one. */
import { execFile } from "node:child_process";
import { accessSync, closeSync, constants, openSync, readFileSync, statfsSync } from "node:fs";
import { arch, release, totalmem } from "node:os";
import { promisify } from "node:util";

export interface HostView {
  readonly architecture: string;
  readonly kernelRelease: string;
  readonly nodeVersion: string;
  readonly euid: number;
  readonly env: NodeJS.ProcessEnv;
  readonly totalMemoryBytes: number;
  /** Throws where there is no such file, or it cannot be read. */
  readonly readText: (path: string) => string;
  /** Throws where the device cannot be opened for reading and writing. */
  readonly open: (path: string) => void;
  readonly isExecutable: (path: string) => boolean;
  /** What is free for users below the nearest folder of `path` that exists. */
  readonly freeBytes: (path: string) => number;
  /** The first line that a program prints; undefined where it cannot be run. */
  readonly firstLine: (program: string, args: readonly string[]) => Promise<string | undefined>;
}

const run = promisify(execFile);

/** This host. */
export const thisHost: HostView = {
  architecture: arch(),
  kernelRelease: release(),
  nodeVersion: process.versions.node,
  euid: process.geteuid?.() ?? 0,
  env: process.env,
  totalMemoryBytes: totalmem(),
  readText: (path) => readFileSync(path, "utf8"),
  open: (path) => closeSync(openSync(path, "r+")),
  isExecutable: (path) => {
    try {
      accessSync(path, constants.X_OK);
      return true;
    } catch {
      return false;
    }
  },
  freeBytes: (path) => {
    for (let folder = path; ; folder = folder.slice(0, Math.max(1, folder.lastIndexOf("/")))) {
      try {
        const { bavail, bsize } = statfsSync(folder);
        return bavail * bsize;
      } catch (error) {
        if (folder === "/") throw error;
      }
    }
  },
  firstLine: async (program, args) => {
    try {
      return (await run(program, [...args], { timeout: 5_000 })).stdout.split("\n", 1)[0];
    } catch {
      return undefined;
    }
  },
};
