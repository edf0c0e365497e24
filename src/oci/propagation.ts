/** How the host's mounts lie, as /proc/self/mountinfo (proc_pid_mountinfo(5)) tells: whether they pass on what is mounted below them
 * (mount_namespaces(7), "Shared subtrees"), and whether anything is. */

/** Whether the mount that `path` (without symbolic links) is in is shared with others. `mountinfo`: the file's text. */
export function isSharedMount(mountinfo: string, path: string): boolean {
  let nearest = { point: "", shared: false };
  for (const line of mountinfo.split("\n")) {
    const [left = ""] = line.split(" - ");
    const [, , , , encoded, , ...optional] = left.split(" ");
    if (encoded === undefined) continue;
    const point = decode(encoded);
    const holds = point === "/" || path === point || path.startsWith(`${point}/`);
    // Of two at one place the later one hides the other.
    if (holds && point.length >= nearest.point.length) nearest = { point, shared: optional.some((field) => field.startsWith("shared:")) };
  }
  return nearest.shared;
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
