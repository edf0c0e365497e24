/** Where the programs and the guest images are that a sandbox is made of. */
import { accessSync, constants, existsSync, realpathSync } from "node:fs";
import { delimiter, isAbsolute, join } from "node:path";
import { HuskError } from "../errors.ts";
import type { GuestImage } from "./machine.ts";

const standardFolders = ["/usr/local/bin", "/usr/bin", "/bin", "/usr/local/sbin", "/usr/sbin", "/sbin"];

/** Finds QEMU: the path configured, or the first in PATH and the standard folders. Throws `host` with what to install. */
export function findQemu(configured: string, env: NodeJS.ProcessEnv): string {
  return find("qemu", configured, "qemu-system-x86_64", searchPath(env), "apt-get install qemu-system-x86");
}

/**
 * Finds virtiofsd: husk's own build of the Rust one, which set-up puts beside the helper, or the host's. `helperFolder`: where the helper is.
 * Throws `host`.
 */
export function findVirtiofsd(configured: string, helperFolder: string, env: NodeJS.ProcessEnv): string {
  // Distributions keep it outside PATH.
  const folders = [helperFolder, "/usr/libexec", "/usr/lib/qemu", "/usr/lib/virtiofsd", ...searchPath(env)];
  return find("virtiofsd", configured, "virtiofsd", folders, "npm run setup, or apt-get install virtiofsd");
}

/**
 * Finds the guest image. `configured`: "auto" (our own kernel where it was built, Debian's otherwise), a flavour, or a folder that holds
 * `kernel` and `initramfs`. `folders`: where the flavours are looked for, in order.
 */
export function findGuestImage(configured: string, folders: readonly string[]): GuestImage {
  const flavours = configured === "auto" ? ["own", "debian"] : [configured];
  const candidates = isAbsolute(configured) ? [configured] : flavours.flatMap((flavour) => folders.map((folder) => join(folder, flavour)));
  for (const folder of candidates) {
    const kernel = join(folder, "kernel");
    const initramfs = join(folder, "initramfs");
    if (!existsSync(kernel) || !existsSync(initramfs)) continue;
    return {
      flavour: folder.slice(folder.lastIndexOf("/") + 1),
      kernel: realpathSync(kernel),
      initramfs: realpathSync(initramfs),
    };
  }
  throw new HuskError("host", `no guest image: looked for kernel and initramfs in ${candidates.join(", ")}`, {
    hint: "run `npm run setup`",
  });
}

/** The folders in which guest images are kept: beside the installed programs, then the user's cache. */
export function guestImageFolders(installation: string, env: NodeJS.ProcessEnv): string[] {
  const cache = env["XDG_CACHE_HOME"] || (env["HOME"] === undefined ? undefined : join(env["HOME"], ".cache"));
  return [join(installation, "guest"), ...(cache === undefined ? [] : [join(cache, "husk", "guest")])];
}

function searchPath(env: NodeJS.ProcessEnv): string[] {
  return [...(env["PATH"] ?? "").split(delimiter).filter(isAbsolute), ...standardFolders];
}

function find(key: string, configured: string, name: string, folders: readonly string[], install: string): string {
  const candidates = configured === "auto" ? folders.map((folder) => join(folder, name)) : [configured];
  const found = candidates.find(isExecutable);
  if (found !== undefined) return realpathSync(found);
  const where = configured === "auto" ? `no ${name} on this host` : `vm.${key} is ${configured}, which is not an executable file`;
  throw new HuskError("host", where, { hint: install });
}

function isExecutable(path: string): boolean {
  try {
    accessSync(path, constants.X_OK);
    return true;
  } catch {
    return false;
  }
}
