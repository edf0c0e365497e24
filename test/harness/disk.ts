/** Bundles whose root file system is an image, with nothing of the host's bound into it. */
import { execFileSync } from "node:child_process";
import { readFileSync, truncateSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { type Bundle, makeRootfs } from "./bundle.ts";
import type { Host } from "./host.ts";
import type { Json } from "./spec.ts";

/** A bundle that runs `script` on an ext4 image of its own. */
export function onDisk(host: Host, script: string, changes: Json = {}): Bundle & { readonly image: string } {
  const bundle = host.script(script, changes);
  const image = join(bundle.path, "image");
  makeDiskImage(host, image);
  const config = join(bundle.path, "config.json");
  const spec = JSON.parse(readFileSync(config, "utf8")) as Json;
  writeFileSync(config, JSON.stringify({ ...spec, root: { path: "image" } }));
  return { ...bundle, image };
}

export function makeDiskImage(host: Host, image: string): void {
  const folder = host.path(host.name("root"));
  makeRootfs(folder);
  writeFileSync(image, "");
  truncateSync(image, 32 * 1024 * 1024);
  execFileSync("mkfs.ext4", ["-q", "-F", "-d", folder, image], { stdio: "pipe" });
}
