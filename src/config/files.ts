/** Where the files are, and how they are read. */
import { closeSync, constants, fstatSync, openSync, readdirSync, readFileSync } from "node:fs";
import { HuskError } from "../errors.ts";

export const CONFIG_FILE = "/etc/husk/config.toml";
export const DROP_IN_FOLDER = "/etc/husk/config.d";

const MAX_BYTES = 1024 * 1024;

/** What loading needs of a disk. */
export interface ConfigFiles {
  /** The whole text; undefined where there is no such file. */
  readText(path: string): string | undefined;
  /** The names in a folder; none where there is no such folder. */
  list(folder: string): readonly string[];
}

export const hostFiles: ConfigFiles = {
  readText(path) {
    const descriptor = unlessMissing(path, () => openSync(path, constants.O_RDONLY | constants.O_NONBLOCK));
    if (descriptor === undefined) return undefined;
    try {
      const found = fstatSync(descriptor);
      if (!found.isFile()) throw new HuskError("invalid-argument", `${path} is not a regular file`);
      if (found.size > MAX_BYTES) throw new HuskError("invalid-argument", `${path} is larger than ${MAX_BYTES} bytes`);
      // It names programs that run as root.
      if ((found.mode & 0o002) !== 0)
        throw new HuskError("invalid-argument", `${path} can be written by anyone`, { hint: `chmod o-w ${path}` });
      return readFileSync(descriptor, "utf8");
    } finally {
      closeSync(descriptor);
    }
  },
  list: (folder) => unlessMissing(folder, () => readdirSync(folder)) ?? [],
};

function unlessMissing<T>(path: string, action: () => T): T | undefined {
  try {
    return action();
  } catch (cause) {
    if (cause instanceof Error && "code" in cause && cause.code === "ENOENT") return undefined;
    throw new HuskError("invalid-argument", `cannot read ${path}`, { cause });
  }
}
