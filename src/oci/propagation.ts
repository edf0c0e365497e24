/** How the host's mounts lie, as /proc/self/mountinfo (proc_pid_mountinfo(5)) tells: whether they pass on what is mounted below them
 * (mount_namespaces(7), "Shared subtrees"), whether anything is, and with what options they are mounted. */

/** Whether the mount that `path` (without symbolic links) is in is shared with others. `mountinfo`: the file's text. */
export function isSharedMount(mountinfo: string, path: string): boolean {
  return mountOf(mountinfo, path).optional.some((field) => field.startsWith("shared:"));
}

/** What the mount that `path` (without symbolic links) is in takes away from whoever uses it, in mount(8)'s words. `mountinfo`: the file's text. */
export function mountOptions(mountinfo: string, path: string): string[] {
  const { options, superblock } = mountOf(mountinfo, path);
  const readonly = [options, superblock].some((each) => each.includes("ro"));
  return [...(readonly ? ["ro"] : []), ...options.filter((option) => taking.has(option))];
}

const taking: ReadonlySet<string> = new Set(["nosuid", "nodev", "noexec", "noatime", "nodiratime", "nosymfollow"]);

/** What mountinfo says of a mount: its own options, those of its file system, and the fields about its propagation. */
interface HostMount {
  readonly options: readonly string[];
  readonly superblock: readonly string[];
  readonly optional: readonly string[];
}

function mountOf(mountinfo: string, path: string): HostMount {
  let nearest: HostMount & { readonly point: string } = { point: "", options: [], superblock: [], optional: [] };
  for (const line of mountinfo.split("\n")) {
    const [left = "", right = ""] = line.split(" - ");
    const [, , , , encoded, options = "", ...optional] = left.split(" ");
    if (encoded === undefined) continue;
    const point = decode(encoded);
    const holds = point === "/" || path === point || path.startsWith(`${point}/`);
    // Of two at one place the later one hides the other.
    if (!holds || point.length < nearest.point.length) continue;
    nearest = { point, options: options.split(","), superblock: (right.split(" ")[2] ?? "").split(","), optional };
  }
  return nearest;
}

/** Whether anything is mounted below `path` (without symbolic links). */
export function hasMountsBelow(mountinfo: string, path: string): boolean {
  const folder = path === "/" ? "/" : `${path}/`;
  return mountinfo.split("\n").some((line) => {
    const point = decode(line.split(" ")[4] ?? "");
    return point !== folder && point.startsWith(folder);
  });
}

/** The kernel writes spaces, tabs, newlines and backslashes as three octal digits. */
function decode(point: string): string {
  return point.replace(/\\([0-7]{3})/g, (_, digits: string) => String.fromCharCode(Number.parseInt(digits, 8)));
}
