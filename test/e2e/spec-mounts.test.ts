/** config.json's mounts: the options that are about the mount itself, propagation, and the kernel's file systems. */
import { mkdirSync, readdirSync, readFileSync, rmdirSync, rmSync, symlinkSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { expect } from "vitest";
import { type Host, test } from "../harness/host.ts";
import { isHusk } from "../harness/runtime.ts";
import { defaultMounts } from "../harness/spec.ts";

test("mounts: the options of a bind mount, and the recursive ones", async ({ host }) => {
  const shared = host.path("shared");
  mkdirSync(`${shared}/inner`, { recursive: true });
  writeFileSync(`${shared}/file`, "text\n");
  const bind = (destination: string, ...options: string[]) => ({
    destination,
    type: "bind",
    source: shared,
    options: ["rbind", ...options],
  });
  const script = `
    options() { grep " $1 " /proc/self/mountinfo | head -1 | cut -d" " -f6; }
    for m in /a /b /c /d /e; do echo $m=$(options $m); done
    touch /d/inner/x 2>/dev/null; echo inner=$?; cp /bin/busybox /c/true; /c/true 2>/dev/null; echo exec=$?`;
  const bundle = host.script(script, {
    mounts: [
      ...defaultMounts,
      bind("/a", "nosuid", "nodev", "noexec", "ro"),
      bind("/b", "noatime", "nodiratime"),
      bind("/c", "rnoexec", "rnosuid"),
      bind("/d", "rro"),
      bind("/e", "ro", "rw", "strictatime"),
    ],
  });
  const { stdout } = await host.run(bundle);
  expect(stdout.split("\n")).toEqual([
    "/a=ro,nosuid,nodev,noexec,relatime",
    "/b=rw,noatime,nodiratime",
    "/c=rw,nosuid,noexec,relatime",
    "/d=ro,relatime",
    "/e=rw",
    "inner=1",
    "exec=126",
    "",
  ]);
});

test("mounts: a bind mount without flags of its own has those of the host's mount; flags replace them", async ({ host }) => {
  const source = await mountTmpfs(host, "-onosuid,nodev,noexec,noatime");
  writeFileSync(`${source}/program`, "#!/bin/sh\necho never\n", { mode: 0o755 });
  const readonly = await mountTmpfs(host, "-oro,nosuid");
  const bind = (destination: string, from: string, ...options: string[]) => ({ destination, type: "bind", source: from, options });
  const script = `
    options() { grep " $1 " /proc/self/mountinfo | head -1 | cut -d" " -f6; }
    for m in /a /b /c /d; do echo $m=$(options $m); done
    /a/program 2>/dev/null; echo $?; /b/program; touch /d/x 2>/dev/null; echo $?`;
  const bundle = host.script(script, {
    mounts: [
      ...defaultMounts,
      bind("/a", source, "rbind", "rprivate"),
      bind("/b", source, "rbind", "nodev"),
      bind("/c", `${source}/program`, "bind"),
      bind("/d", readonly, "bind"),
    ],
  });
  expect((await host.run(bundle)).stdout.split("\n")).toEqual([
    "/a=rw,nosuid,nodev,noexec,noatime",
    "/b=rw,nodev,noatime",
    "/c=rw,nosuid,nodev,noexec,noatime",
    "/d=ro,nosuid,relatime",
    "126",
    "never",
    "1",
    "",
  ]);
});

test("mounts: a destination without its slash begins at the root all the same", async ({ host }) => {
  const source = host.path("source");
  mkdirSync(source);
  writeFileSync(join(source, "file"), "bound\n");
  const mounts = [
    ...defaultMounts,
    { destination: "made/for/it", type: "tmpfs", source: "tmpfs", options: ["size=64k"] },
    { destination: "data", type: "bind", source, options: ["bind", "ro"] },
  ];
  const script = "stat -f -c %T /made/for/it; cat /data/file";
  expect((await host.run(host.script(script, { mounts }))).stdout).toBe("tmpfs\nbound\n");
});

/** A file system of the host's of its own, with that propagation; unmounted at the test's end. */
async function mountTmpfs(host: Host, propagation: string, name = host.name("tmpfs"), above?: string): Promise<string> {
  const folder = above === undefined ? host.path(name) : join(above, name);
  mkdirSync(folder);
  const mounted = await host.start("mount", ["-t", "tmpfs", propagation, "tmpfs", folder]).ended();
  host.defer(async () => void (await host.start("umount", [folder]).ended()));
  if (mounted.status !== 0) throw new Error(mounted.stderr);
  return folder;
}

test("mounts: those below a read-only bind mount can be written to, unless they are to be read-only too; without rbind, they are not there", async ({
  host,
}) => {
  const outer = await mountTmpfs(host, "--make-private");
  const inner = await mountTmpfs(host, "--make-private", "inner", outer);
  const bind = (destination: string, ...options: string[]) => ({ destination, type: "bind", source: outer, options });
  const script = `
    for m in /a /b /c; do touch $m/x 2>/dev/null; top=$?; echo from $m 2>/dev/null >$m/inner/x; echo $m $top $?; done
    cat /a/inner/x; ls /d; ls /d/inner; rm /a/inner/x`;
  const mounts = [
    ...defaultMounts,
    bind("/a", "rbind", "ro"),
    bind("/b", "rbind", "rro"),
    bind("/c", "rbind", "ro", "rslave"),
    bind("/d", "bind"),
  ];
  const { stdout, stderr } = await host.run(host.script(script, { mounts }));
  expect({ stdout, stderr }).toEqual({ stdout: "/a 1 0\n/b 1 1\n/c 1 0\nfrom /c\ninner\n", stderr: expect.not.stringContaining("husk:") });
  expect(readdirSync(inner)).toEqual([]);
});

test.runIf(isHusk)("mounts: propagation of the root and of a mount", async ({ host }) => {
  const shared = host.path("shared");
  mkdirSync(shared);
  const unshared = await mountTmpfs(host, "--make-private");
  const script = `
    kind() { grep " $1 " /proc/self/mountinfo | head -1 | sed "s/ - .*//" | cut -d" " -f7-; }
    echo root=$(kind / | grep -o "shared"); echo private=$(kind /a); echo tmp=$(kind /b | grep -o shared); echo own=$(kind /c | grep -o shared)`;
  const bundle = host.script(script, {
    mounts: [
      ...defaultMounts,
      { destination: "/a", type: "bind", source: shared, options: ["bind", "rprivate"] },
      { destination: "/b", type: "tmpfs", source: "x", options: ["rshared"] },
      { destination: "/c", type: "bind", source: unshared, options: ["bind", "rshared"] },
    ],
    linux: { rootfsPropagation: "shared" },
  });
  const { stdout } = await host.run(bundle);
  expect(stdout).toBe("root=shared\nprivate=\ntmp=shared\nown=shared\n");
});

test("mounts: the kernel's file systems", async ({ host }) => {
  const script = `
    type() { awk -v m="$1" "\\$5 == m" /proc/self/mountinfo | sed "s/.* - //" | cut -d" " -f1; }
    for m in /proc /sys /dev /dev/pts /dev/shm /dev/mqueue; do echo $m=$(type $m); done
    echo pts=$(stat -c %a /dev/pts/ptmx); touch /dev/mqueue/q && ls /dev/mqueue; stat -f -c %b*%S /dev/shm; [ -e /sys/fs/cgroup/cgroup.procs -o -e /sys/fs/cgroup/memory ] && echo cgroup`;
  const { stdout } = await host.run(host.script(script));
  expect(stdout).toBe(
    "/proc=proc\n/sys=sysfs\n/dev=tmpfs\n/dev/pts=devpts\n/dev/shm=tmpfs\n/dev/mqueue=mqueue\npts=666\nq\n16384*4096\ncgroup\n",
  );
});

test("mounts: a tmpfs has the mode, the owner and the files below it that its options say", async ({ host }) => {
  const bundle = host.script(
    "stat -c '%a %u %g' /x; stat -c %a /new/folder /old; ls /etc | grep -c passwd; cat /etc/passwd | head -c 4; touch /etc/new && echo writable",
    {
      mounts: [
        ...defaultMounts,
        { destination: "/x", type: "tmpfs", source: "x", options: ["mode=0710", "uid=5", "gid=6", "size=64k", "nr_inodes=10"] },
        { destination: "/new/folder", type: "tmpfs", source: "x" },
        { destination: "/old", type: "tmpfs", source: "x" },
        { destination: "/etc", type: "tmpfs", source: "etc", options: ["tmpcopyup"] },
      ],
      root: { readonly: true },
    },
  );
  mkdirSync(`${bundle.rootfs}/old`, { mode: 0o710 });
  // Where there was no mount point, older versions of runc give the mode of the one that they make.
  expect((await host.run(bundle)).stdout).toMatch(
    isHusk ? /^710 5 6\n1777\n710\n1\nrootwritable\n$/ : /^710 5 6\n(1777|755)\n710\n1\nrootwritable\n$/,
  );
});

test("mounts: a destination behind a link stays in the root file system, and a file is mounted on a file", async ({ host }) => {
  const bundle = host.script("cat /inside/x; readlink /link; ls -ld /etc/made | cut -c1", {
    mounts: [
      ...defaultMounts,
      { destination: "/link/x", type: "bind", source: "../single", options: ["bind"] },
      { destination: "/etc/made", type: "bind", source: "../single", options: ["bind", "ro"] },
    ],
  });
  mkdirSync(`${bundle.rootfs}/inside`);
  symlinkSync("/inside", `${bundle.rootfs}/link`);
  writeFileSync(host.path("single"), "single\n");
  expect((await host.run(bundle)).stdout).toBe("single\n/inside\n-\n");
});

test("mounts: /proc and /sys on a link are refused: what is masked in them would be elsewhere", async ({ host }) => {
  for (const name of ["proc", "sys"]) {
    const bundle = host.script("echo never");
    rmSync(`${bundle.rootfs}/${name}`, { recursive: true, force: true });
    symlinkSync("/elsewhere", `${bundle.rootfs}/${name}`);
    const { status, stdout, stderr } = await host.run(bundle);
    expect(status).toBe(1);
    expect(stdout).toBe("");
    expect(stderr).toContain("must be mounted on ordinary directory");
  }
});

test.runIf(isHusk)("mounts: what a virtual machine cannot have is refused by name", async ({ host }) => {
  const shared = await mountTmpfs(host, "--make-shared");
  const refused: [object, RegExp][] = [
    [{ destination: "/a", type: "bind", source: "/tmp", options: ["bind", "idmap"] }, /mounts\[7\]: an id-mapped mount is not supported/],
    [{ destination: "/a", type: "bind", source: shared, options: ["rbind", "rshared"] }, /mounts\[7\]: propagation back to the host/],
    [{ destination: "/a", type: "ext4", source: "/dev/sda1" }, /mounts\[7\]: the file system ext4 cannot be mounted in the guest/],
    [{ destination: "/a", type: "bind", source: "/not/there", options: ["bind"] }, /mounts\[7\]: source \/not\/there does not exist/],
  ];
  for (const [mount, words] of refused) {
    const { status, stderr } = await host.run(host.bundle({ mounts: [...defaultMounts, mount] }));
    expect({ status, stderr }).toEqual({ status: 125, stderr: expect.stringMatching(words) });
  }
});

test("mounts: a read-only root without the folders to mount on, and without a working directory", async ({ host }) => {
  const bundle = host.script("pwd; ls /proc/1/comm; touch /new 2>/dev/null; echo $?", {
    root: { readonly: true },
    process: { cwd: "/not/there" },
  });
  for (const name of ["proc", "sys", "dev"]) rmdirSync(`${bundle.rootfs}/${name}`);
  expect((await host.run(bundle)).stdout).toBe("/not/there\n/proc/1/comm\n1\n");
});

test("mounts: an overlay of folders of the host, as Podman's volumes with the option O", async ({ host }) => {
  for (const name of ["lower", "upper", "work"]) mkdirSync(host.path(name));
  writeFileSync(`${host.path("lower")}/file`, "from below\n");
  const options = ["nosuid", `lowerdir=${host.path("lower")}`, `upperdir=${host.path("upper")}`, `workdir=${host.path("work")}`];
  const bundle = host.script("cat /over/file; echo changed >/over/file; echo new >/over/new; ls /over", {
    mounts: [...defaultMounts, { destination: "/over", type: "overlay", source: "overlay", options }],
  });
  expect((await host.run(bundle)).stdout).toBe("from below\nfile\nnew\n");
  expect(readFileSync(`${host.path("lower")}/file`, "utf8")).toBe("from below\n");
  expect(readFileSync(`${host.path("upper")}/file`, "utf8")).toBe("changed\n");
  rmSync(host.path("work"), { recursive: true });
});
