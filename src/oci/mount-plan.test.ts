import { describe, expect, test } from "vitest";
import { planMount } from "./mount-plan.ts";
import type { Source } from "./sources.ts";
import type { Mount } from "./types.ts";

const bind = (source: string, destination = "/data", ...options: string[]): Mount => ({ destination, type: "bind", source, options });
const folder = (realPath: string): Source => ({ kind: "folder", realPath });
const plan = (mount: Mount, source?: Source) => planMount(mount, source, mount.source ?? "");
const refused = (reason: string) => ({ action: "refuse", reason });

test.each(["proc", "sysfs", "tmpfs", "devpts", "mqueue", "cgroup", "cgroup2"])("the guest mounts its own %s", (type) => {
  expect(plan({ destination: "/x", type, source: type })).toEqual({ action: "keep" });
});

describe("shares", () => {
  test("a folder and a file, by their real paths", () => {
    expect(plan(bind("/srv/link"), folder("/srv/data"))).toEqual({
      action: "share",
      hostPath: "/srv/data",
      readonly: false,
      isFile: false,
    });
    expect(plan(bind("/etc/hosts", "/etc/hosts", "ro"), { kind: "file", realPath: "/etc/hosts" })).toEqual({
      action: "share",
      hostPath: "/etc/hosts",
      readonly: true,
      isFile: true,
    });
  });

  test.each([
    [["ro", "rw"], false],
    [["rw", "ro"], true],
    [["rro"], true],
    [["rbind", "rprivate"], false],
  ])("the last word on writing counts: %j", (options, readonly) => {
    expect(plan(bind("/srv", "/data", ...options), folder("/srv"))).toMatchObject({ readonly });
  });

  test("with the options bind or rbind, whatever the type is", () => {
    expect(plan({ destination: "/x", source: "/srv", options: ["rbind"] }, folder("/srv"))).toMatchObject({ action: "share" });
    expect(plan({ destination: "/x", type: "none", source: "/srv", options: ["bind"] }, folder("/srv"))).toMatchObject({ action: "share" });
  });

  test("folders in the host's shared memory are data like others", () => {
    expect(plan(bind("/dev/shm/pool"), { ...folder("/dev/shm/pool") })).toMatchObject({ action: "share", hostPath: "/dev/shm/pool" });
  });

  test("with the mounts that the host makes later, where it is asked to follow them", () => {
    expect(plan(bind("/srv", "/data", "rslave"), folder("/srv"))).toMatchObject({ action: "share", follows: true });
    expect(plan(bind("/srv", "/data", "rprivate"), folder("/srv"))).not.toHaveProperty("follows");
  });
});

describe("a read-only mount and those below it", () => {
  const source: Source = { kind: "folder", realPath: "/srv", mountsBelow: true };

  test.each([
    [["rbind", "ro"], true],
    [["rbind", "rw", "ro"], true],
    [["rbind", "rro"], false],
    [["rbind", "rro", "ro"], false],
    [["rbind", "rw"], false],
    // Without those below it, none of them is to be written to.
    [["bind", "ro"], false],
  ])("with %j, those below stay writable: %j", (options, writable) => {
    const planned = plan(bind("/srv", "/data", ...options), source);
    expect("writableBelow" in planned).toBe(writable);
  });

  test("those below are there with rbind, and not with bind", () => {
    expect(plan(bind("/srv", "/data", "rbind"), source)).not.toHaveProperty("recursive");
    expect(plan(bind("/srv", "/data", "bind", "rbind"), source)).not.toHaveProperty("recursive");
    expect(plan(bind("/srv", "/data", "bind"), source)).toMatchObject({ recursive: false });
  });

  test("where there are none, the whole is read-only, unless some may come", () => {
    expect(plan(bind("/srv", "/data", "rbind", "ro"), folder("/srv"))).not.toHaveProperty("writableBelow");
    expect(plan(bind("/srv", "/data", "rbind", "ro", "rslave"), folder("/srv"))).toMatchObject({ follows: true, writableBelow: true });
  });
});

describe("takes the guest's own instead", () => {
  test("shared memory of the size that the engine gave it", () => {
    const source: Source = { kind: "folder", realPath: "/run/x/shm", tmpfsBytes: 64 * 1024 * 1024 };
    const options = ["nosuid", "noexec", "nodev", "mode=1777", "size=65536k"];
    const note = "shared memory is a tmpfs of the guest";
    expect(plan(bind("/run/x/shm", "/dev/shm/", "rw"), source)).toEqual({
      action: "replace",
      mount: { destination: "/dev/shm/", type: "tmpfs", source: "shm", options },
      memoryOf: "/run/x/shm",
      note,
    });
    expect(plan(bind("/run/x/shm", "/dev/shm", "ro"), source)).toMatchObject({ mount: { options: [...options, "ro"] } });
    // A folder that is no tmpfs holds somebody's files.
    expect(plan(bind("/srv/shm", "/dev/shm"), folder("/srv/shm"))).toMatchObject({ action: "share" });
  });

  test("cgroups", () => {
    expect(plan(bind("/sys/fs/cgroup", "/sys/fs/cgroup", "ro"), folder("/sys/fs/cgroup"))).toEqual({
      action: "replace",
      mount: {
        destination: "/sys/fs/cgroup",
        type: "cgroup",
        source: "cgroup",
        options: ["nosuid", "noexec", "nodev", "relatime", "ro"],
      },
      note: "the guest's cgroups take the place of the host's",
    });
  });

  test("sysfs, and no hierarchy of cgroup v1", () => {
    const options = ["nosuid", "noexec", "nodev", "relatime", "ro"];
    expect(plan(bind("/sys", "/sys", "rbind", "ro"), folder("/sys"))).toEqual({
      action: "replace",
      mount: { destination: "/sys", type: "sysfs", source: "sysfs", options },
      note: "the guest's sysfs takes the place of the host's",
    });
    expect(plan(bind("/sys/fs/cgroup/systemd", "/sys/fs/cgroup/systemd"), folder("/sys/fs/cgroup/systemd"))).toEqual({
      action: "drop",
      note: "the guest's cgroups are of version 2, and have no such hierarchy",
    });
  });

  test("devices that every Linux has", () => {
    const source: Source = { kind: "character-device", realPath: "/dev/nothing", major: 1, minor: 3 };
    expect(plan(bind("/dev/nothing", "/masked", "ro"), source)).toEqual({ action: "replace", mount: bind("/dev/null", "/masked", "ro") });
  });
});

describe("refuses", () => {
  test.each<[string, Mount, Source | undefined, string]>([
    ["a missing source", bind("/x"), { kind: "missing" }, "source /x does not exist"],
    ["an unreadable one", bind("/x"), { kind: "unreadable", reason: "EACCES" }, "source /x cannot be looked at: EACCES"],
    [
      "a socket",
      bind("/run/docker.sock"),
      { kind: "socket", realPath: "/run/docker.sock" },
      "source /run/docker.sock is a unix socket: a unix socket of the host cannot cross into a virtual machine",
    ],
    ["a FIFO", bind("/f"), { kind: "fifo", realPath: "/f" }, "source /f is a FIFO: a FIFO of the host cannot cross into a virtual machine"],
    [
      "a disk",
      bind("/dev/sda"),
      { kind: "block-device", realPath: "/dev/sda", major: 8, minor: 0 },
      "source /dev/sda is a block device of the host, which the guest does not have",
    ],
    [
      "a device",
      bind("/dev/kvm"),
      { kind: "character-device", realPath: "/dev/kvm", major: 10, minor: 232 },
      "source /dev/kvm is a device of the host, which the guest does not have",
    ],
    [
      "the root",
      { destination: "/.", type: "tmpfs", source: "tmpfs" },
      undefined,
      "a mount over the root itself: root.path says what that is",
    ],
    ["no source", { destination: "/x", type: "bind" }, undefined, "a bind mount needs a source"],
    ["neither type nor bind", { destination: "/x", source: "/y" }, undefined, "it has neither a type nor the option bind"],
    [
      "a disk's file system",
      { destination: "/x", type: "ext4", source: "/dev/sda1" },
      undefined,
      "the file system ext4 cannot be mounted in the guest: what it stands on is the host's; mount it there, and bind the folder",
    ],
    ["/proc", bind("/proc"), folder("/proc"), "source /proc belongs to the host's kernel, which is not the guest's"],
    ["below /sys", bind("/s"), folder("/sys/class/net"), "source /s belongs to the host's kernel, which is not the guest's"],
    ["a group of cgroups", bind("/s"), folder("/sys/fs/cgroup/x"), "source /s belongs to the host's kernel, which is not the guest's"],
    ["/dev", bind("/dev"), folder("/dev"), "source /dev belongs to the host's kernel, which is not the guest's"],
    [
      "the host's shared memory",
      bind("/dev/shm", "/dev/shm"),
      { kind: "folder", realPath: "/dev/shm", tmpfsBytes: 1 },
      "source /dev/shm is the host's shared memory, which a virtual machine cannot take part in",
    ],
    [
      "propagation back",
      bind("/x", "/x", "rshared"),
      { kind: "folder", realPath: "/x", shared: true },
      "propagation back to the host (shared) is not supported: mounts made in the guest are the guest's",
    ],
    ["id mapping", bind("/x", "/x", "idmap"), folder("/x"), "an id-mapped mount is not supported: virtio-fs has no id-mapped mounts"],
    [
      "id mapping by mappings",
      { ...bind("/x"), uidMappings: [{ containerID: 0, hostID: 1, size: 1 }] },
      folder("/x"),
      "an id-mapped mount is not supported: virtio-fs has no id-mapped mounts",
    ],
  ])("%s", (_, mount, source, reason) => {
    expect(plan(mount, source)).toEqual(refused(reason));
  });

  test("not what only looks like it", () => {
    expect(plan(bind("/x"), folder("/process"))).toMatchObject({ action: "share" });
    expect(plan(bind("/x"), folder("/devel"))).toMatchObject({ action: "share" });
  });
});

test("an overlay's own options are the host's, the others the mount's; it needs folders by absolute paths", () => {
  const overlay = (...options: string[]) => planMount({ destination: "/x", type: "overlay", source: "overlay", options }, undefined, "");
  expect(overlay("ro", "lowerdir=/a:/b", "upperdir=/u", "workdir=/w", "volatile")).toEqual({
    action: "share",
    hostPath: "/a",
    readonly: true,
    isFile: false,
    overlay: ["lowerdir=/a:/b", "upperdir=/u", "workdir=/w", "volatile"],
  });
  expect(overlay("upperdir=/u")).toEqual({ action: "refuse", reason: "an overlay needs the option lowerdir" });
  expect(overlay("lowerdir=a")).toEqual({ action: "refuse", reason: "an overlay's folders must be absolute paths, and a is none" });
});
