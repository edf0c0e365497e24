import { execFileSync } from "node:child_process";
import { once } from "node:events";
import { mkdir, mkdtemp, realpath, rm, symlink, writeFile } from "node:fs/promises";
import { createServer } from "node:net";
import { tmpdir } from "node:os";
import path from "node:path";
import { afterEach, beforeEach, describe, expect, test } from "vitest";
import { checkRootfs, inspectSources, isHostNetwork, loadBundle, loadProcess } from "./bundle.ts";
import { configJson, defaultSpec } from "./default-spec.ts";

let folder: string;
beforeEach(async () => {
  folder = await realpath(await mkdtemp(path.join(tmpdir(), "husk-bundle-")));
});
afterEach(() => rm(folder, { recursive: true }));

const inFolder = (name: string) => path.join(folder, name);
const writeConfig = (text: string | Buffer) => writeFile(inFolder("config.json"), text);

describe("loadBundle", () => {
  test("reads what `husk spec` wrote", async () => {
    await writeConfig(configJson(defaultSpec));
    expect(await loadBundle(folder)).toEqual({ path: folder, spec: defaultSpec, rootfs: inFolder("rootfs"), unknown: [] });
  });

  test("takes a relative folder, and a root file system that is elsewhere", async () => {
    await writeConfig(JSON.stringify({ ...defaultSpec, root: { path: "/srv/image" } }));
    const bundle = await loadBundle(path.relative(process.cwd(), folder));
    expect(bundle).toMatchObject({ path: folder, rootfs: "/srv/image" });
  });

  test("tells what to do where there is no config.json, and where there is no bundle", async () => {
    await expect(loadBundle(folder)).rejects.toMatchObject({
      code: "invalid-argument",
      message: `bundle ${folder} has no config.json`,
      hint: "make one with `husk spec`",
    });
    await expect(loadBundle(inFolder("nowhere"))).rejects.toMatchObject({ message: `bundle ${inFolder("nowhere")} does not exist` });
    await writeConfig("");
    await expect(loadBundle(inFolder("config.json"))).rejects.toMatchObject({
      message: `bundle ${inFolder("config.json")} has no config.json`,
    });
  });

  test("refuses what is too large, no file, no UTF-8, no JSON", async () => {
    await writeConfig(Buffer.alloc(4 * 1024 * 1024 + 1, " "));
    await expect(loadBundle(folder)).rejects.toThrow(`${inFolder("config.json")} is larger than 4 MiB`);
    await writeConfig(Buffer.from([0x22, 0xff, 0x22]));
    await expect(loadBundle(folder)).rejects.toThrow(`${inFolder("config.json")} is not UTF-8`);
    await writeConfig("{");
    await expect(loadBundle(folder)).rejects.toThrow(
      "config.json: line 1, column 2: expected a property's name in double quotes, got the end of the text",
    );
    await rm(inFolder("config.json"));
    await mkdir(inFolder("config.json"));
    await expect(loadBundle(folder)).rejects.toThrow(`${inFolder("config.json")} is not a regular file`);
    await rm(inFolder("config.json"), { recursive: true });
    execFileSync("mkfifo", [inFolder("config.json")]);
    await expect(loadBundle(folder)).rejects.toThrow(`${inFolder("config.json")} is not a regular file`);
  });
});

test("checkRootfs names a root file system that is missing, and one that is no folder", async () => {
  await writeConfig(configJson(defaultSpec));
  const bundle = await loadBundle(folder);
  await expect(checkRootfs(bundle)).rejects.toThrow(`config.json: root.path: ${inFolder("rootfs")} does not exist`);
  await writeFile(inFolder("rootfs"), "");
  await expect(checkRootfs(bundle)).rejects.toThrow(`config.json: root.path: ${inFolder("rootfs")} is not a folder`);
  await rm(inFolder("rootfs"));
  await mkdir(inFolder("rootfs"));
  await checkRootfs(bundle);
});

test("loadProcess reads the file of exec --process", async () => {
  const file = inFolder("process.json");
  await expect(loadProcess(file)).rejects.toThrow(`${file} does not exist`);
  await writeFile(file, '{"user":{"uid":1,"gid":2},"args":["id"],"cwd":"/"}');
  expect((await loadProcess(file)).value).toEqual({ user: { uid: 1, gid: 2 }, args: ["id"], cwd: "/" });
});

test("inspectSources tells what each source is", async () => {
  await writeFile(inFolder("file"), "");
  await symlink("file", inFolder("link"));
  await symlink("nothing", inFolder("dangling"));
  execFileSync("mkfifo", [inFolder("fifo")]);
  const server = createServer().listen(inFolder("socket"));
  await once(server, "listening");
  const bind = (source: string) => ({ destination: "/x", type: "bind", source });
  const mounts = [
    { destination: "/proc", type: "proc", source: "proc" },
    bind(folder),
    bind("file"),
    { destination: "/x", source: inFolder("link"), options: ["rbind"] },
    bind("dangling"),
    bind("fifo"),
    bind("socket"),
    bind("/dev/null"),
    bind("file/below"),
    bind("/dev/shm"),
    bind("x".repeat(5000)),
  ];
  const sources = await inspectSources({ ...defaultSpec, mounts }, folder);
  server.close();
  const mountOptions = expect.any(Array);
  const file = { kind: "file", realPath: inFolder("file"), mountOptions };
  expect([...sources]).toEqual([
    [1, expect.objectContaining({ kind: "folder", realPath: folder })],
    [2, file],
    [3, file],
    [4, { kind: "missing" }],
    [5, { kind: "fifo", realPath: inFolder("fifo") }],
    [6, { kind: "socket", realPath: inFolder("socket") }],
    [7, { kind: "character-device", realPath: "/dev/null", major: 1, minor: 3 }],
    [8, { kind: "missing" }],
    [9, { kind: "folder", realPath: "/dev/shm", mountOptions, tmpfsBytes: expect.any(Number) }],
    [10, { kind: "unreadable", reason: expect.stringContaining("ENAMETOOLONG") }],
  ]);
});

test("isHostNetwork knows the host's network namespace by whatever path, and no other", async () => {
  const file = path.join(folder, "netns");
  await symlink("/proc/self/ns/net", file);
  expect(isHostNetwork(file)).toBe(true);
  expect([isHostNetwork("/not/there"), isHostNetwork("/proc/self/ns/uts"), isHostNetwork("/etc")]).toEqual([false, false, false]);
});
