/** Checkpoints of containers that have folders and files of the host: those that are open stay open, in whatever machine they go on. */
import { once } from "node:events";
import { cpSync, existsSync, mkdirSync, readdirSync, readFileSync, renameSync, rmdirSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import type { Readable } from "node:stream";
import { describe, expect } from "vitest";
import type { Bundle } from "../harness/bundle.ts";
import { counter, counting, finish, restore, say } from "../harness/counter.ts";
import { onDisk } from "../harness/disk.ts";
import { type Host, test } from "../harness/host.ts";
import type { Program } from "../harness/program.ts";
import { isHusk } from "../harness/runtime.ts";
import { findPart } from "../harness/sandbox-processes.ts";
import { defaultMounts } from "../harness/spec.ts";

/** Says with each line how far it is in a file that it reads, and keeps what it is told in another one; programs of the folder's go on being run. */
const files = `exec 3>/kept 4</data/lines; cd /data; i=0; echo ready
  while read line; do i=$((i+1)); echo "$line" >&3; read next <&4; echo "$i $line" && echo "$next" >>/read; done
  exec 3>&-; cat /kept /read; pwd; ls`;

/** A counter of lines that reads a file of the host's, in a bundle with a bind mount. */
function reading(host: Host): Bundle {
  const data = host.path(host.name("data"));
  mkdirSync(data);
  writeFileSync(join(data, "lines"), "one\ntwo\nthree\nfour\nfive\n");
  return host.script(files, { mounts: [...defaultMounts, { destination: "/data", source: data, type: "bind", options: ["rbind", "rw"] }] });
}

function checkpoint(host: Host, folder: string, id: string, ...flags: readonly string[]): Promise<string> {
  return host.ok("checkpoint", ...flags, "--image-path", folder, id);
}

/** A program whose standard output the test reads itself, once it has begun to say something. */
async function speaking(program: Program): Promise<{ readonly program: Program; readonly stdout: Readable }> {
  const { stdout } = program.child;
  if (stdout === null) throw new Error("it has no standard output");
  await once(stdout, "readable");
  return { program, stdout };
}

/** Reads what must be `text` again and again, at its byte `from` at first; answers how far it came. Throws at the first byte that is another one. */
async function again(stdout: Readable, text: Buffer, from: number): Promise<number> {
  let at = from;
  for await (const chunk of stdout as AsyncIterable<Buffer>) {
    for (let rest = chunk; rest.length > 0; ) {
      const expected = text.subarray(at % text.length).subarray(0, rest.length);
      const part = rest.subarray(0, expected.length);
      if (!part.equals(expected)) throw new Error(`from byte ${at} on it says ${JSON.stringify(part.toString("latin1").slice(0, 100))}`);
      at += part.length;
      rest = rest.subarray(part.length);
    }
  }
  return at;
}

describe.runIf(isHusk)("a checkpoint of a container whose root is a folder", () => {
  test("goes on with its open files where they were, as often as one likes", async ({ host }) => {
    const bundle = reading(host);
    const folder = host.path("image");
    const { id, foreground } = await counting(host, bundle);
    expect(await checkpoint(host, folder, id)).toBe("");
    expect((await foreground.ended()).status).toBe(137);
    expect(readFileSync(join(bundle.rootfs, "kept"), "utf8")).toBe("a\nb\n");
    for (const name of [id, host.name()]) {
      const restored = restore(host, bundle, folder, name);
      expect(await say(restored, "c")).toBe("3 c\n");
      expect(await host.ok("exec", name, "cat", "/kept", "/read")).toContain("a\nb\nc\none\ntwo\n");
      expect(await finish(restored)).toMatch(/^3 c\na\nb\nc\none\ntwo\n(three\n)+\/data\nlines\n$/);
    }
  });

  test("that is left running goes on, and its copy with a copy of the folder", async ({ host }) => {
    const bundle = reading(host);
    const folder = host.path("image");
    const { id, foreground } = await counting(host, bundle);
    await checkpoint(host, folder, id, "--leave-running");
    const copy = host.path("copy");
    cpSync(bundle.path, copy, { recursive: true, verbatimSymlinks: true });
    // As engines make another root from an image: what is mounted on is not there.
    for (const mountPoint of ["data", "proc", "sys"]) rmdirSync(join(copy, "rootfs", mountPoint));
    expect(await say(foreground, "c")).toBe("3 c\n");
    await checkpoint(host, folder, id, "--leave-running");
    expect(await say(foreground, "d")).toBe("4 d\n");
    const restored = restore(host, { path: copy, rootfs: join(copy, "rootfs") }, folder);
    expect(await say(restored, "e")).toBe("4 e\n");
    expect(await finish(foreground)).toBe("ready\n1 a\n2 b\n3 c\n4 d\na\nb\nc\nd\none\ntwo\nthree\nfour\n/data\nlines\n");
    expect(await finish(restored)).toMatch(/^4 e\n/);
    expect(readFileSync(join(bundle.rootfs, "kept"), "utf8")).toBe("a\nb\nc\nd\n");
    expect(readFileSync(join(copy, "rootfs/kept"), "utf8")).toMatch(/e\n$/);
  });

  test("in the midst of bulk output loses and repeats none of it", async ({ host }) => {
    const numbers = Buffer.from(Array.from({ length: 1_000_000 }, (_, index) => `${index}\n`).join(""));
    // However fast it is, it has not ended before the checkpoint.
    const bundle = host.script("until [ -e /stop ]; do cat /numbers; done");
    writeFileSync(join(bundle.rootfs, "numbers"), numbers);
    const folder = host.path("image");
    const id = host.name();
    const first = await speaking(host.launch(["run", "--bundle", bundle.path, id], { stdout: "raw" }));
    const before = again(first.stdout, numbers, 0);
    await checkpoint(host, folder, id);
    expect((await first.program.ended()).status).toBe(137);
    const second = await speaking(host.launch(["restore", "--bundle", bundle.path, "--image-path", folder, id], { stdout: "raw" }));
    const after = again(second.stdout, numbers, await before);
    writeFileSync(join(bundle.rootfs, "stop"), "");
    expect((await second.program.ended()).status).toBe(0);
    expect(await after).toBeGreaterThan(await before);
    expect((await after) % numbers.length).toBe(0);
  });

  test("of one whose root is an image with a file of the host's bound into it", async ({ host }) => {
    const source = host.path("hosts");
    writeFileSync(source, "127.0.0.1 here\n");
    const mounts = [...defaultMounts, { destination: "/hosts", source, type: "bind", options: ["bind", "ro"] }];
    const bundle = onDisk(host, `exec 4</hosts; ${counter}; cat <&4`, { mounts });
    const folder = host.path("image");
    const { id, foreground } = await counting(host, bundle);
    await checkpoint(host, folder, id);
    await foreground.ended();
    const restored = restore(host, bundle, folder, id);
    expect(await say(restored, "c")).toBe("3 c\n");
    expect(await finish(restored)).toBe("3 c\na\nb\nc\n127.0.0.1 here\n");
  });

  test("with an open file that has no name any more is refused by its name, and everything goes on", async ({ host }) => {
    const { id, foreground } = await counting(host, host.script(counter));
    const folder = host.path("image");
    expect(await host.runtime("checkpoint", "--image-path", folder, id)).toEqual({
      status: 1,
      stdout: "",
      stderr: expect.stringMatching(
        /^husk: the container's files cannot be checkpointed: \S+\/rootfs\/tmp\/open is open, and has no name any more\n$/,
      ),
    });
    expect(readdirSync(folder)).toEqual([]);
    expect(await say(foreground, "c")).toBe("3 c\n");
    expect(await finish(foreground)).toContain("3 c\na\nb\nc\n");
  });

  test("whose folder's server answers too late is none, and everything goes on once it answers", async ({ host }) => {
    // So soon, a machine would not boot everywhere: its template is there first.
    const machine = '[vm]\nmemory = "128MiB"\n';
    expect((await host.run(host.script("true"), { env: host.configuration(machine) })).status).toBe(0);
    const env = host.configuration(`${machine}[deadlines]\nboot_s = 15\n`);
    const { id, foreground } = await host.running(host.script(counter), { env, stdin: "pipe" });
    const { pid } = findPart(host, id, "virtiofsd") ?? expect.fail("it has no server");
    process.kill(pid, "SIGSTOP");
    expect(await host.runtime("checkpoint", "--image-path", host.path("image"), id)).toEqual({
      status: 1,
      stdout: "",
      stderr: "husk: the guest did not answer PrepareCheckpoint in time\n",
    });
    process.kill(pid, "SIGCONT");
    expect(await say(foreground, "a")).toBe("1 a\n");
    expect(await finish(foreground)).toContain("1 a\na\n");
  });

  test("is not restored without a file that was in use, nor with other mounts, in whatever order they are", async ({ host }) => {
    const bundle = reading(host);
    const folder = host.path("image");
    const { id, foreground } = await counting(host, bundle);
    await checkpoint(host, folder, id);
    await foreground.ended();
    const refused = async (message: RegExp): Promise<void> => {
      const { status, stdout, stderr } = await restore(host, bundle, folder).ended();
      expect({ status, stdout, stderr }).toEqual({ status: 125, stdout: "", stderr: expect.stringMatching(message) });
    };
    renameSync(join(bundle.rootfs, "kept"), join(bundle.rootfs, "hidden"));
    await refused(
      /^husk: the VM of "\S+" did not start: virtiofsd ended with status 1: .*Opening \S+\/rootfs\/kept: No such file or directory/,
    );
    renameSync(join(bundle.rootfs, "hidden"), join(bundle.rootfs, "kept"));
    const [known = ""] = readdirSync(folder).filter((name) => name.startsWith("folder-"));
    const content = readFileSync(join(folder, known));
    writeFileSync(join(folder, known), content.subarray(1));
    await refused(/is damaged: \S+folder-\w+ was changed\n$/);
    writeFileSync(join(folder, known), content);
    const config = join(bundle.path, "config.json");
    const spec = readFileSync(config, "utf8");
    const withMounts = (mounts: readonly object[]): void =>
      writeFileSync(config, JSON.stringify({ ...(JSON.parse(spec) as object), mounts }));
    withMounts(defaultMounts);
    await refused(
      /^husk: config\.json: mounts: the checkpointed container has something of the host's on \/data, and the bundle has not \(/,
    );
    const { mounts } = JSON.parse(spec) as { mounts: object[] };
    const other = { destination: "/other", source: host.folder, type: "bind", options: ["bind"] };
    withMounts([other, ...mounts]);
    await refused(/^husk: config\.json: mounts: the checkpointed container has nothing of the host's on \/other, and the bundle has \(/);
    withMounts(mounts.toReversed()); // engines give them in any order
    const restored = restore(host, bundle, folder);
    expect(await say(restored, "c")).toBe("3 c\n");
    await finish(restored);
  });

  test("of a machine that was booted is refused, before anything stops", async ({ host }) => {
    const env = host.configuration('[template]\nenabled = false\n[vm]\nmemory = "256MiB"\n');
    const { id, foreground } = await host.running(host.script(counter), { env, stdin: "pipe" });
    const folder = host.path("image");
    expect(await host.runtime("checkpoint", "--image-path", folder, id)).toMatchObject({
      status: 1,
      stderr: expect.stringMatching(
        /^husk: a virtual machine that was booted, and not cloned from a template, cannot be checkpointed with a shared folder \(see template/,
      ),
    });
    expect(existsSync(folder)).toBe(false);
    expect(await say(foreground, "a")).toBe("1 a\n");
    await finish(foreground);
  });
});
