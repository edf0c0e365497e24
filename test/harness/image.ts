/** An image of Debian's busybox-static as an archive that every engine loads: docker load, podman load, ctr image import. */
import { execFileSync } from "node:child_process";
import { createHash } from "node:crypto";
import { mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { makeRootfs } from "./bundle.ts";

/** The image's name, as docker and podman know it. */
export const imageName = "local/busybox:1";

/** Makes the archive in `folder`, and answers its path. */
export function makeImage(folder: string): string {
  const rootfs = join(folder, "image-rootfs");
  makeRootfs(rootfs);
  mkdirSync(join(rootfs, "var"));
  const [layer, archive] = [join(folder, "layer.tar"), join(folder, "image.tar")];
  execFileSync("tar", ["-C", rootfs, "-cf", layer, "."]);
  const config = {
    architecture: "amd64",
    os: "linux",
    config: { Cmd: ["sh"], Env: ["PATH=/bin"] },
    rootfs: { type: "layers", diff_ids: [`sha256:${createHash("sha256").update(readFileSync(layer)).digest("hex")}`] },
  };
  writeFileSync(join(folder, "config.json"), JSON.stringify(config));
  writeFileSync(join(folder, "manifest.json"), JSON.stringify([{ Config: "config.json", RepoTags: [imageName], Layers: ["layer.tar"] }]));
  execFileSync("tar", ["-C", folder, "-cf", archive, "manifest.json", "config.json", "layer.tar"]);
  return archive;
}
