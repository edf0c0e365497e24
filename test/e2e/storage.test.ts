/** Root file systems and folders of the host as file systems: what programs expect of them, and images in the place of folders. */
import { execFileSync } from "node:child_process";
import { readdirSync, readFileSync, statSync, truncateSync, utimesSync, writeFileSync } from "node:fs";
import { setTimeout } from "node:timers/promises";
import { expect } from "vitest";
import { makeRootfs } from "../harness/bundle.ts";
import { type Host, test } from "../harness/host.ts";
import { descendants } from "../harness/processes.ts";
import { isHusk } from "../harness/runtime.ts";
import { findPart } from "../harness/sandbox-processes.ts";

/** An image of the root file system, made by `command` with the folder and the image's path in place of DIR and IMAGE. */
function image(host: Host, command: string): string {
  const [folder, path] = [host.path("image-root"), host.path(host.name("image"))];
  makeRootfs(folder);
  writeFileSync(path, "");
  execFileSync("sh", ["-c", command.replaceAll("DIR", folder).replaceAll("IMAGE", path)], { stdio: "pipe" });
  return path;
}

const makeExt4 = "truncate -s 64M IMAGE && mkfs.ext4 -q -F -d DIR IMAGE";

test("a folder does what programs ask of a file system", async ({ host }) => {
  const script = `
    set -e
    mkdir -p /w/a/b/c; cd /w
    echo one >file; ln file hard; ln -s file soft; [ "$(stat -c %h file)" = 2 ]; [ "$(cat soft)" = one ]
    mv hard a/moved; echo two >>file; [ "$(cat a/moved | tail -1)" = two ]
    echo new >replacement; mv replacement file; [ "$(cat file)" = new ]; [ "$(head -1 a/moved)" = one ]
    exec 3<>open; rm open; echo kept >&3; [ "$(cat /proc/self/fd/3)" = kept ]; exec 3>&-
    mkfifo pipe; (echo through >pipe &); [ "$(cat pipe)" = through ]
    truncate -s 1G sparse; [ "$(stat -c %s sparse)" = 1073741824 ]; [ "$(stat -c %b sparse)" = 0 ]; rm sparse
    touch -d '2001-02-03 04:05:06' dated; [ "$(stat -c %Y dated)" = "$(date -d '2001-02-03 04:05:06' +%s)" ]
    name=$(head -c 255 /dev/zero | tr '\\0' n); touch $name; [ -e $name ]; touch "ümläut and space"; [ -e "ümläut and space" ]
    ! mkdir a 2>/dev/null; ! rmdir a 2>/dev/null; ! cat missing 2>/dev/null; ! cat a 2>/dev/null
    chmod 4755 file; [ "$(stat -c %a file)" = 4755 ]; chown 1000:1000 file; [ "$(stat -c %a:%u file)" = 755:1000 ]
    echo '#!/bin/sh' >run; echo 'echo ran' >>run; chmod +x run; [ "$(./run)" = ran ]
    i=0; while [ $i -lt 300 ]; do echo $i >a/b/$i; i=$((i+1)); done; [ "$(ls a/b | wc -l)" = 301 ]; rm -r a; [ ! -e a ]
    df /w >/dev/null; sync; echo all of it`;
  expect(await host.run(host.script(script))).toEqual({ status: 0, stdout: "all of it\n", stderr: "" });
});

/** Fills a file that it has mapped, as its child has, and ends without another word. */
const mapper = `
  #include <fcntl.h>
  #include <sys/mman.h>
  #include <unistd.h>
  int main(void) {
    int file = open("/mapped", O_RDWR | O_CREAT, 0644);
    if (ftruncate(file, 8 << 20) != 0) return 1;
    char *memory = mmap(0, 8 << 20, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
    for (int at = 0; at < 8 << 20; at++) memory[at] = 'm';
    if (fork() == 0) for (;;) pause();
    return 0;
  }`;

test("what a program has mapped and written is in the host's file once it has ended", async ({ host }) => {
  const bundle = host.script("exec /mapper");
  execFileSync("gcc", ["-static", "-x", "c", "-o", `${bundle.rootfs}/mapper`, "-"], { input: mapper });
  expect(await host.run(bundle)).toEqual({ status: 0, stdout: "", stderr: "" });
  expect(readFileSync(`${bundle.rootfs}/mapped`).equals(Buffer.alloc(8 << 20, "m"))).toBe(true);
});

/** How long after its last change a file counts as one that shows its next change, in milliseconds (tools/virtiofsd/keep-unchanged.patch). */
const settledMs = 3_100;

/** How many bytes virtiofsd has read so far. */
function bytesRead(host: Host, id: string): number {
  const supervisor = findPart(host, id, "supervisor")?.pid ?? 0;
  const served = descendants(supervisor).filter(({ name }) => name === "virtiofsd");
  return served.reduce((sum, { pid }) => sum + Number(/^rchar: (\d+)$/m.exec(readFileSync(`/proc/${pid}/io`, "utf8"))?.[1]), 0);
}

test("a file that the host changes is read anew when it is opened, and one that nobody changed is not", async ({ host }) => {
  const bundle = host.script("echo ready; read line");
  const [small, large] = [`${bundle.rootfs}/small`, `${bundle.rootfs}/large`];
  writeFileSync(small, "1st\n");
  writeFileSync(large, Buffer.alloc(4_000_000, "x"));
  const { id, foreground } = await host.running(bundle, { stdin: "pipe" });
  await setTimeout(settledMs);
  const readAll = "cat /small; wc -c </large";
  const read = (): Promise<string> => host.ok("exec", id, "sh", "-c", readAll);
  expect([await read(), await read()]).toEqual(["1st\n4000000\n", "1st\n4000000\n"]);
  if (isHusk) {
    const before = bytesRead(host, id);
    await read();
    expect(bytesRead(host, id) - before).toBeLessThan(2_000_000);
  }
  // As well where the size and the time of the change stay the same.
  const { atime, mtime } = statSync(small);
  writeFileSync(small, "2nd\n");
  utimesSync(small, atime, mtime);
  expect(await read()).toBe("2nd\n4000000\n");
  writeFileSync(small, "3rd\n");
  expect(await read()).toBe("3rd\n4000000\n");
  foreground.stdin.end("\n");
  expect((await foreground.ended()).status).toBe(0);
});

test("permissions hold for users other than root", async ({ host }) => {
  const script = "cat /etc/private; echo x >/etc/passwd; echo mine >/home/mine && cat /home/mine; rm /tmp/sticky";
  const bundle = host.script(script, { process: { user: { uid: 1000, gid: 1000 }, capabilities: { effective: [], permitted: [] } } });
  writeFileSync(`${bundle.rootfs}/etc/private`, "secret\n", { mode: 0o600 });
  writeFileSync(`${bundle.rootfs}/tmp/sticky`, "root's\n", { mode: 0o666 });
  execFileSync("chown", ["1000:1000", `${bundle.rootfs}/home`]);
  const { stdout, stderr } = await host.run(bundle);
  expect(stdout).toBe("mine\n");
  expect(stderr.split("\n")).toEqual([
    "cat: can't open '/etc/private': Permission denied",
    "sh: can't create /etc/passwd: Permission denied",
    expect.stringMatching(/^rm: can't remove '\/tmp\/sticky': (Operation not permitted|Permission denied)$/),
    "",
  ]);
  expect(statSync(`${bundle.rootfs}/home/mine`)).toMatchObject({ uid: 1000, gid: 1000 });
});

test("a read-only root keeps the host's folder as it is", async ({ host }) => {
  const bundle = host.script("touch /new; rm /etc/passwd; chmod 777 /etc/group; ls /etc/passwd", { root: { readonly: true } });
  const { status, stdout, stderr } = await host.run(bundle);
  expect({ status, stdout }).toEqual({ status: 0, stdout: "/etc/passwd\n" });
  expect(stderr.match(/Read-only file system/g)).toHaveLength(3);
  expect(readdirSync(bundle.rootfs)).not.toContain("new");
});

test.runIf(isHusk)("an ext4 image as root, written to, and written to again", async ({ host }) => {
  const root = { path: image(host, makeExt4) };
  const write = host.script("grep ' / ' /proc/mounts | cut -d' ' -f3; echo kept >/kept; ls /proc/1/root >/dev/null && echo ready", {
    root,
  });
  expect(await host.run(write)).toEqual({ status: 0, stdout: "ext4\nready\n", stderr: "" });
  const read = host.script("cat /kept; touch /new", { root: { ...root, readonly: true } });
  expect(await host.run(read)).toEqual({ status: 1, stdout: "kept\n", stderr: "touch: /new: Read-only file system\n" });
  execFileSync("fsck.ext4", ["-fn", root.path], { stdio: "pipe" }); // throws where the end was not clean
});

test.runIf(isHusk)("an erofs image as root, which stays as it is, though the container may write", async ({ host }) => {
  const root = { path: image(host, "mkfs.erofs --quiet IMAGE DIR") };
  const before = execFileSync("sha256sum", [root.path], { encoding: "utf8" });
  expect(await host.run(host.script("echo x >/new && cat /new; rm -r /home; ls -d /home", { root }))).toMatchObject({
    status: 1,
    stdout: "x\n",
  });
  expect(await host.run(host.script("ls -d /new /home; touch /x", { root: { ...root, readonly: true } }))).toMatchObject({
    stdout: "/home\n",
    stderr: expect.stringMatching(/touch: \/x: Read-only file system\n$/),
  });
  expect(execFileSync("sha256sum", [root.path], { encoding: "utf8" })).toBe(before);
});

test.runIf(isHusk)("an image beside folders of the host, and the advertised PID shows none of the host's files", async ({ host }) => {
  writeFileSync(host.path("file"), "the host's\n");
  const bundle = host.script("cat /etc/bound; echo ready; read line", {
    root: { path: image(host, makeExt4) },
    mounts: [
      { destination: "/proc", type: "proc", source: "proc" },
      { destination: "/etc/bound", type: "bind", source: host.path("file"), options: ["bind", "ro"] },
    ],
  });
  const { id, foreground } = await host.running(bundle, { stdin: "pipe" });
  expect(foreground.stdout?.text()).toBe("the host's\nready\n");
  expect(readdirSync(`/proc/${(await host.state(id)).pid}/root`)).toEqual([]);
  foreground.stdin.end("\n");
  expect((await foreground.ended()).status).toBe(0);
});

test.runIf(isHusk)("what is no image is refused, and a damaged one is no hang", async ({ host }) => {
  writeFileSync(host.path("text"), "text\n".repeat(1000));
  const text = await host.run(host.script("true", { root: { path: host.path("text") } }));
  expect(text).toMatchObject({
    status: 125,
    stdout: "",
    stderr: expect.stringMatching(/^husk: root\.path: \S+text holds no file system that the guest can mount \(.+\)\n$/),
  });
  const damaged = image(host, makeExt4);
  truncateSync(damaged, 8192);
  const result = await host.run(host.script("true", { root: { path: damaged } }));
  expect(result.status).toBe(1); // as any mount that a kernel refuses
  expect(result.stderr).toMatch(/^husk: .*ext4.*\n$/);
});
