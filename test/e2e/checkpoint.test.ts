/** Checkpoints: a container's whole virtual machine in a folder, which goes on where it was, or is refused. */
import { execFileSync } from "node:child_process";
import { appendFileSync, existsSync, mkdirSync, readdirSync, readFileSync, statSync, watch, writeFileSync } from "node:fs";
import { join } from "node:path";
import { describe, expect } from "vitest";
import { counter, counting, finish, restore, say } from "../harness/counter.ts";
import { makeDiskImage, onDisk } from "../harness/disk.ts";
import { test } from "../harness/host.ts";
import { makeNetwork, type Network } from "../harness/network.ts";
import { isHusk } from "../harness/runtime.ts";
import { findPart } from "../harness/sandbox-processes.ts";
import type { Json } from "../harness/spec.ts";
import { Terminal } from "../harness/terminal.ts";

describe.runIf(isHusk)("a checkpoint", () => {
  test("ends the container, which goes on from it: its memory, a file without a name, its state, exec and signals", async ({ host }) => {
    const bundle = onDisk(host, counter);
    const folder = host.path("image");
    const { id, foreground } = await counting(host, bundle);
    expect(await host.ok("checkpoint", "--image-path", folder, id)).toBe("");
    expect(await foreground.ended()).toMatchObject({ status: 137, stderr: `husk: the sandbox of "${id}" ended: it was checkpointed\n` });
    const log = host.path("log");
    const restored = host.launch(
      ["--debug", "--log", log, "restore", "--trace", "--work-path", "/w", "--bundle", bundle.path, "--image-path", folder, id],
      { stdin: "pipe" },
    );
    await restored.stderr?.until("container goes on");
    // Before anything of the container's ran: what two machines of one memory must not have in common.
    expect(restored.stderr?.text()).toMatch(
      /guest's agent answers, having set clock, random, hostname, machine-id\n.*\n.*container goes on/,
    );
    expect(await say(restored, "c")).toBe("3 c\n");
    expect(await host.state(id)).toMatchObject({ id, status: "running", pid: restored.pid });
    const now = Number(await host.ok("exec", id, "date", "+%s"));
    expect(Math.abs(now - Date.now() / 1000)).toBeLessThan(30);
    expect(JSON.parse(await host.ok("events", "--stats", id))).toMatchObject({ id, data: { pids: { current: 1 } } });
    expect(readFileSync(log, "utf8")).toContain("--work-path has no meaning");
    expect(await finish(restored)).toBe("3 c\na\nb\nc\n");
    // What was written to the disk since is not in the checkpoint's memory: over this disk, it would destroy the file system.
    const again = await restore(host, bundle, folder).ended();
    expect(again).toMatchObject({ status: 125, stdout: "" });
    expect(again.stderr).toMatch(
      /^husk: root\.path: \S+ is not the disk as it was at the checkpoint: it was changed since, or is another file\n$/,
    );
  });

  test("of a container that is left running: both go on, each with a disk of its own", async ({ host }) => {
    const bundle = onDisk(host, counter);
    const folder = host.path("image");
    const { id, foreground } = await counting(host, bundle);
    await host.ok("checkpoint", "--leave-running", "--image-path", folder, id);
    expect(await host.state(id)).toMatchObject({ status: "running" });
    expect(await say(foreground, "c")).toBe("3 c\n");
    const inUse = await restore(host, bundle, folder).ended();
    expect(inUse).toMatchObject({
      status: 125,
      stderr: expect.stringMatching(/^husk: root\.path: another virtual machine writes to the disk: /),
    });
    await host.ok("exec", id, "sh", "-c", "echo more >/more; sync");
    const taken = await restore(host, bundle, folder).ended();
    expect(taken).toMatchObject({
      status: 125,
      stderr: expect.stringMatching(/its content is another \(`cp --sparse=always \S+disk0-\w+ \S+` makes/),
    });
    const [copy] = readdirSync(folder).filter((name) => name.startsWith("disk0-"));
    const copies = ["one", "other"].map((name) => {
      const path = host.path(name);
      mkdirSync(path);
      execFileSync("cp", ["--sparse=always", join(folder, copy ?? ""), join(path, "image")]);
      writeFileSync(join(path, "config.json"), readFileSync(join(bundle.path, "config.json")));
      return { path, rootfs: "" };
    });
    // Twice, under two ids: each has its own disk.
    const restored = copies.map((one) => restore(host, one, folder));
    for (const one of restored) expect(await say(one, "d")).toBe("3 d\n");
    for (const one of restored) expect(await finish(one)).toBe("3 d\na\nb\nd\n");
    expect(await say(foreground, "e")).toBe("4 e\n");
    expect(await finish(foreground)).toContain("4 e\na\nb\nc\ne\n");
    for (const image of [bundle.image, join(host.path("one"), "image")]) execFileSync("fsck.ext4", ["-fn", image], { stdio: "pipe" });
  });

  test("holds the memory that is in use, and what was freed no more", async ({ host }) => {
    const fill =
      "dd if=/dev/urandom of=/dev/shm/x bs=1M count=48 2>/dev/null; dd if=/dev/urandom of=/dev/shm/kept bs=1M count=4 2>/dev/null; rm /dev/shm/x";
    const { id, foreground } = await counting(
      host,
      onDisk(host, `${fill}; sum=$(md5sum </dev/shm/kept); ${counter}; echo "$sum"; md5sum </dev/shm/kept`),
    );
    const folder = host.path("image");
    await host.ok("checkpoint", "--image-path", folder, id);
    await foreground.ended();
    const bytes = readdirSync(folder).reduce((sum, name) => sum + statSync(join(folder, name)).size, 0);
    expect(bytes / 1024 / 1024).toBeLessThan(64);
  });

  test("of a terminal: the shell goes on at another one", async ({ host }) => {
    const bundle = onDisk(host, "", { process: { terminal: true, args: ["sh", "-i"], env: ["PATH=/bin", "PS1=$ ", "TERM=dumb"] } });
    const config = join(bundle.path, "config.json");
    const spec = JSON.parse(readFileSync(config, "utf8")) as { process: object };
    writeFileSync(config, JSON.stringify({ ...spec, process: { ...spec.process, args: ["sh", "-i"] } }));
    const first = Terminal.run(host, ["run", "--bundle", bundle.path, "shell"]);
    await first.screen.until("$ ");
    await first.command("kept=once");
    await host.ok("checkpoint", "--image-path", host.path("image"), "shell");
    expect((await first.process.ended()).status).toBe(137);
    const second = Terminal.run(host, ["restore", "--bundle", bundle.path, "--image-path", host.path("image"), "shell"]);
    await host.until(async () => (await host.runtime("state", "shell")).stdout.includes('"running"'), 60_000);
    expect(await second.command("echo $kept; stty size")).toBe("once\n24 80\n");
    second.type("exit 3\n");
    expect((await second.process.ended()).status).toBe(3);
  });

  test("in a network: the restored container has its new namespace's, and is reached by it", async ({ host }) => {
    const names = ["pid", "ipc", "uts", "mount"].map((type) => ({ type }));
    const inside = (network: Network): Json => ({ linux: { namespaces: [...names, { type: "network", path: network.path }] } });
    const [before, after] = [await makeNetwork(host), await makeNetwork(host)];
    after.ip("address add 10.93.7.77/24 dev eth0");
    const bundle = onDisk(host, counter, inside(before));
    const { id, foreground } = await counting(host, bundle);
    await host.ok("checkpoint", "--image-path", host.path("image"), id);
    await foreground.ended();
    const config = join(bundle.path, "config.json");
    const spec = JSON.parse(readFileSync(config, "utf8")) as Json;
    writeFileSync(config, JSON.stringify({ ...spec, ...inside(after) }));
    const restored = restore(host, bundle, host.path("image"), id);
    expect(await say(restored, "c")).toBe("3 c\n");
    const [, mac = ""] = /ether (\S+)/.exec(after.ip("link show eth0")) ?? [];
    const link = await host.ok("exec", id, "ip", "address", "show", "eth0");
    expect(link).toContain(mac);
    expect(link).toContain("10.93.7.77/24");
    expect(await host.ok("exec", id, "ping", "-c", "1", "-w", "20", "10.93.7.1")).toContain("1 packets received");
    expect(await finish(restored)).toContain("3 c");
    for (const network of [before, after]) await network.close();
  });

  test("that fails leaves the container running", async ({ host }) => {
    const { id, foreground } = await counting(host, onDisk(host, counter));
    writeFileSync(host.path("file"), "");
    expect(await host.runtime("checkpoint", "--image-path", join(host.path("file"), "x"), id)).toMatchObject({
      status: 1,
      stderr: expect.stringMatching(/^husk: cannot write a checkpoint to \S+\/file\/x: ENOTDIR/),
    });
    const small = host.path("small");
    mkdirSync(small);
    execFileSync("mount", ["-t", "tmpfs", "-o", "size=3m", "tmpfs", small]);
    host.defer(() => void execFileSync("umount", [small]));
    expect(await host.runtime("checkpoint", "--image-path", small, id)).toMatchObject({
      status: 1,
      stderr: expect.stringMatching(/^husk: the helper could not copy: .*No space left on device/),
    });
    expect(readdirSync(small)).toEqual([]);
    expect(await say(foreground, "c")).toBe("3 c\n");
    expect(await host.ok("exec", id, "echo", "alive")).toBe("alive\n");
    expect(await finish(foreground)).toContain("3 c\n");
  });

  test("whose maker is killed is none, and the next one takes its place", async ({ host }) => {
    const bundle = onDisk(host, counter);
    const folder = host.path("image");
    mkdirSync(folder);
    const { id, foreground } = await counting(host, bundle);
    const watcher = watch(folder, (_, name) => {
      if (name?.startsWith("memory-")) process.kill(findPart(host, id, "supervisor")?.pid ?? 0, "SIGKILL");
    });
    const failed = await host.runtime("checkpoint", "--image-path", folder, id);
    watcher.close();
    expect(failed.status).not.toBe(0);
    expect((await foreground.ended()).status).toBe(137);
    expect(existsSync(join(folder, "checkpoint.json"))).toBe(false);
    expect(readdirSync(folder).some((name) => name.startsWith("memory-"))).toBe(true);
    expect(await restore(host, bundle, folder).ended()).toMatchObject({ status: 1, stderr: `husk: ${folder} holds no checkpoint\n` });
    const second = await counting(host, onDisk(host, counter));
    await host.ok("checkpoint", "--image-path", folder, second.id);
    expect(
      readdirSync(folder)
        .map((name) => name.replace(/-\w+$/, ""))
        .toSorted(),
    ).toEqual(["checkpoint.json", "inventory.img", "memory", "state"]);
    await second.foreground.ended();
  });

  test("that is damaged, or is to go on elsewhere, is one clear error", async ({ host }) => {
    const bundle = onDisk(host, counter);
    const folder = host.path("image");
    const { id, foreground } = await counting(host, bundle);
    await host.ok("checkpoint", "--image-path", folder, id);
    await foreground.ended();
    const file = (kind: string): string => join(folder, readdirSync(folder).find((name) => name.startsWith(kind)) ?? "");
    const refused = async (message: RegExp): Promise<void> => {
      const { status, stdout, stderr } = await restore(host, bundle, folder).ended();
      expect({ status, stdout, stderr }).toEqual({ status: 125, stdout: "", stderr: expect.stringMatching(message) });
    };
    const damaged = async (path: string, change: (content: Buffer) => Buffer | string, message: RegExp): Promise<void> => {
      const content = readFileSync(path);
      writeFileSync(path, change(content));
      await refused(message);
      writeFileSync(path, content);
    };
    const manifest = join(folder, "checkpoint.json");
    const edited = (from: RegExp, to: string) => (content: Buffer) => content.toString().replace(from, to);
    await damaged(manifest, () => "{", /^husk: the checkpoint in \S+ is damaged: .*JSON.*\n$/);
    await damaged(
      manifest,
      edited(/"vcpus": 1/, '"vcpus": 0'),
      /^husk: .* is damaged: vcpus: expected a whole number from 1 to 1024, got 0\n$/,
    );
    await damaged(
      manifest,
      edited(/"memory-\w+"/, '"../../memory"'),
      /is damaged: memory\.file: expected the name of a checkpoint's file\n$/,
    );
    await damaged(
      manifest,
      edited(/"husk": "[^"]+"/, '"husk": "9.9"'),
      /^husk: the checkpoint was made with another husk: 9\.9, and not [\d.]+\n$/,
    );
    await damaged(manifest, edited(/"qemu": "[^"]+"/, '"qemu": "9.9"'), /: the checkpoint was made with another QEMU: 9\.9, and not \d+\./);
    await damaged(manifest, edited(/"-m"/, '"-n"'), /^husk: the checkpoint was made with another machine: -n, and not -m\n$/);
    await damaged(
      manifest,
      edited(/"terminal": false/, '"terminal": true'),
      /^husk: config\.json: process\.terminal: the checkpointed container has a/,
    );
    await damaged(file("state"), (content) => content.subarray(1), /^husk: .* is damaged: \S+state-\w+ was changed\n$/);
    await damaged(
      file("memory"),
      (content) => content.subarray(1),
      /^husk: .* is damaged: \S+memory-\w+ has \d+ bytes, which cannot be\n$/,
    );
    await damaged(
      file("memory"),
      (content) => Buffer.concat([content.subarray(0, 100), Buffer.of(1 + (content[100] ?? 0)), content.subarray(101)]),
      /is damaged: its sum is/,
    );
    appendFileSync(bundle.image, "x");
    await refused(/^husk: root\.path: \S+ is not the disk as it was at the checkpoint: it has \d+ bytes, and had \d+\n$/);
    makeDiskImage(host, bundle.image);
    await refused(/is not the disk as it was at the checkpoint: it was changed since, or is another file\n$/);
  });

  test("that cannot be is refused by name, before anything stops", async ({ host }) => {
    const { id, foreground } = await host.running(host.script(counter), { stdin: "pipe" });
    const refused = async (args: readonly string[], message: RegExp | string): Promise<void> => {
      const folder = host.path("none");
      const result = await host.runtime("checkpoint", "--image-path", folder, ...args);
      expect(result).toEqual({ status: 1, stdout: "", stderr: expect.stringMatching(message) });
      expect(existsSync(folder)).toBe(false);
    };
    await refused(["--pre-dump", id], /^husk: --pre-dump is not supported: a checkpoint is a whole virtual machine's/);
    await refused(["nobody"], 'husk: container "nobody" does not exist');
    expect(await say(foreground, "a")).toBe("1 a\n");
    expect(await finish(foreground)).toContain("1 a\n");
    const created = await host.create(onDisk(host, "true"));
    await refused([created.id], `husk: container ${created.id} cannot be checkpointed in created state`);
    await host.ok("delete", "--force", created.id);
    await created.program.ended();
  });
});
