/** Bundles made of Debian's busybox-static: a root file system with a link for each applet, and a config.json. */
import { execFileSync } from "node:child_process";
import { chmodSync, copyFileSync, mkdirSync, symlinkSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { type Json, specWith } from "./spec.ts";

export interface Bundle {
  readonly path: string;
  readonly rootfs: string;
}

const busybox = "/bin/busybox";

/** The applets of the host's busybox, asked once. */
let applets: readonly string[] | undefined;

/** Fills `folder` with a root file system. */
export function makeRootfs(folder: string): void {
  for (const name of ["bin", "dev", "etc", "proc", "sys", "tmp", "root", "home", "run"]) mkdirSync(join(folder, name), { recursive: true });
  chmodSync(join(folder, "tmp"), 0o1777);
  copyFileSync(busybox, join(folder, "bin/busybox"));
  applets ??= execFileSync(busybox, ["--list"], { encoding: "utf8" }).split("\n");
  for (const applet of applets) if (applet !== "" && applet !== "busybox") symlinkSync("busybox", join(folder, "bin", applet));
  writeFileSync(join(folder, "etc/passwd"), "root:x:0:0:root:/root:/bin/sh\nuser:x:1000:1000:user:/home:/bin/sh\n");
  writeFileSync(join(folder, "etc/group"), "root:x:0:\nuser:x:1000:\n");
}

/** A bundle in the new folder `path`: the default config.json with `changes`. */
export function makeBundle(path: string, changes: Json): Bundle {
  const bundle = { path, rootfs: join(path, "rootfs") };
  makeRootfs(bundle.rootfs);
  writeConfig(bundle, changes);
  return bundle;
}

/** Replaces a bundle's config.json. */
export function writeConfig(bundle: Bundle, changes: Json): void {
  writeFileSync(join(bundle.path, "config.json"), JSON.stringify(specWith(changes)));
}

/** Writes a file that can be executed into a bundle's root file system. */
export function writeProgram(bundle: Bundle, path: string, text: string): void {
  writeFileSync(join(bundle.rootfs, path), text, { mode: 0o755 });
}
