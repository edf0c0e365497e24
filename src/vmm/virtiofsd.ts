/**
 * The two programs called virtiofsd: QEMU's own in C, up to QEMU 7.2, and its successor in Rust. Both are confined to one folder by chroot, so that they stay in the
 * sandbox's mount namespace and see what is mounted there later, and both announce submounts, so that files of different file systems with one
 * inode number stay different files in the guest.
 */
import { execFile } from "node:child_process";
import { promisify } from "node:util";
import { HuskError } from "../errors.ts";

/**
 * "rust": https://gitlab.com/virtio-fs/virtiofsd; "husk": husk's own build of it, with the changes in tools/virtiofsd; "c":
 * https://qemu.readthedocs.io/en/v7.2.0/tools/virtiofsd.html
 */
export type VirtiofsdKind = "husk" | "rust" | "c";

/** Which of the two `program` is, by its own word; husk's own is known by its place. Throws `host` where it does not run. */
export async function identifyVirtiofsd(program: string): Promise<Exclude<VirtiofsdKind, "husk">> {
  try {
    const { stdout } = await promisify(execFile)(program, ["--version"], { timeout: 5_000 });
    return kindFromVersion(stdout);
  } catch (cause) {
    throw new HuskError("host", `cannot run ${program}`, { cause });
  }
}

/** The C program says "virtiofsd version 7.2.22 (...)", the Rust one "virtiofsd 1.14.0". */
export function kindFromVersion(text: string): Exclude<VirtiofsdKind, "husk"> {
  return text.startsWith("virtiofsd version ") ? "c" : "rust";
}

/**
 * The arguments with which it serves `folder` on the socket that listens at `descriptor`. `before`: where it reads what another one knew of the guest's files; husk's
 * own alone.
 */
export function virtiofsdArguments(kind: VirtiofsdKind, folder: string, descriptor: number, before?: number): string[] {
  const common = [`--fd=${descriptor}`, "--thread-pool-size=0", "--rlimit-nofile=0"];
  if (kind === "c") return ["-f", ...common, "-o", `source=${folder},sandbox=chroot,cache=auto,xattr,announce_submounts,log_level=err`];
  // By handle, a file that the guest remembers costs no open file on the host; a file system without handles falls back to that.
  const handles = ["--inode-file-handles=prefer", "--modcaps=+dac_read_search"];
  return [
    ...common,
    `--shared-dir=${folder}`,
    "--sandbox=chroot",
    "--cache=auto",
    "--xattr",
    "--announce-submounts",
    ...handles,
    "--log-level=error",
    ...(kind === "husk" ? ["--hand-over"] : []),
    ...(before === undefined ? [] : [`--state-fd=${before}`]),
  ];
}
