import { expect, test } from "vitest";
import { hasMountsBelow, isSharedMount, mountOptions } from "./propagation.ts";

const mountinfo = `22 1 8:1 / / rw,relatime shared:1 - ext4 /dev/sda1 rw
30 22 0:30 / /run rw shared:5 master:2 - tmpfs tmpfs rw
31 22 0:31 / /srv rw master:1 - tmpfs tmpfs rw
32 22 0:32 / /srv/a\\040b rw shared:7 - tmpfs tmpfs rw
33 22 0:33 / /hidden rw shared:8 - tmpfs tmpfs rw
34 33 0:34 / /hidden rw - tmpfs tmpfs rw
`;

test.each([
  ["/etc", true],
  ["/run", true],
  ["/run/x/y", true],
  ["/running", true],
  ["/srv", false],
  ["/srv/x", false],
  ["/srv/a b/c", true],
  ["/hidden/x", false],
])("whether %s is in a shared mount: %j", (path, shared) => {
  expect(isSharedMount(mountinfo, path)).toBe(shared);
});

test.each([
  ["/etc", []],
  ["/mnt/x", ["ro", "nosuid", "nodev", "noexec", "noatime", "nodiratime", "nosymfollow"]],
  ["/mnt/image/file", ["ro"]],
  ["/mnt/image2", ["ro", "nosuid", "nodev", "noexec", "noatime", "nodiratime", "nosymfollow"]],
])("what the mount of %s takes away: %j", (path, options) => {
  const text = `${mountinfo}40 22 0:40 / /mnt ro,nosuid,nodev,noexec,noatime,nodiratime,nosymfollow shared:9 - tmpfs tmpfs rw,size=4k
41 40 0:41 / /mnt/image rw,relatime - squashfs /dev/loop0 ro,errors=continue
`;
  expect(mountOptions(text, path)).toEqual(options);
});

test.each([
  ["/", true],
  ["/srv", true],
  ["/srv/a b", false],
  ["/run", false],
  ["/ru", false],
  ["/etc", false],
])("whether anything is mounted below %s: %j", (path, below) => {
  expect(hasMountsBelow(mountinfo, path)).toBe(below);
});
