/** An image of Debian's busybox-static as an archive that every engine loads: docker load, podman load, ctr image import. */
import { execFileSync } from "node:child_process";
import { createHash } from "node:crypto";
import { mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { makeRootfs } from "./bundle.ts";

/** The image's name, as docker and podman know it. */
export const imageName = "local/busybox:1";

/** One that does nothing, for a pod's pause container. */
export const pauseName = "local/pause:1";

/** Makes the archive of an image below `parent`, and answers its path. */
export function makeImage(parent: string, name = imageName, command: readonly string[] = ["sh"]): string {
  const folder = join(parent, name.replaceAll(/\W/g, "-"));
  const rootfs = join(folder, "image-rootfs");
  mkdirSync(folder);
  makeRootfs(rootfs);
  mkdirSync(join(rootfs, "var"));
  const [layer, archive] = [join(folder, "layer.tar"), join(folder, "image.tar")];
  execFileSync("tar", ["-C", rootfs, "-cf", layer, "."]);
  const config = {
    architecture: "amd64",
    os: "linux",
    config: { Cmd: command, Env: ["PATH=/bin"] },
    rootfs: { type: "layers", diff_ids: [`sha256:${createHash("sha256").update(readFileSync(layer)).digest("hex")}`] },
  };
  writeFileSync(join(folder, "config.json"), JSON.stringify(config));
  writeFileSync(join(folder, "manifest.json"), JSON.stringify([{ Config: "config.json", RepoTags: [name], Layers: ["layer.tar"] }]));
  execFileSync("tar", ["-C", folder, "-cf", archive, "manifest.json", "config.json", "layer.tar"]);
  return archive;
}
