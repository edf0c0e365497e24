/** `husk spec`. */
import { writeFileSync } from "node:fs";
import { join, resolve } from "node:path";
import { HuskError } from "../errors.ts";
import { hasCode } from "../host/system-error.ts";
import { configJson, defaultSpec, rootless } from "../oci/default-spec.ts";
import type { Invocation } from "./command-line.ts";

export function spec({ flags }: Invocation<"spec">): void {
  const folder = resolve(flags.bundle ?? ".");
  const file = join(folder, "config.json");
  const made = flags.rootless ? rootless(defaultSpec, process.geteuid?.() ?? 0, process.getegid?.() ?? 0) : defaultSpec;
  try {
    writeFileSync(file, configJson(made), { flag: "wx" });
  } catch (cause) {
    if (hasCode(cause, "EEXIST")) throw new HuskError("already-exists", `${file} exists; remove it first`);
    if (hasCode(cause, "ENOENT", "ENOTDIR")) throw new HuskError("invalid-argument", `${folder} is no folder`);
    throw new HuskError("host", `cannot write ${file}`, { cause });
  }
}
