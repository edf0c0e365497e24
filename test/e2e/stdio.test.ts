/** Standard input, output and error: every byte arrives, in order, and their ends as well. */
import { execFileSync } from "node:child_process";
import { once } from "node:events";
import { closeSync, mkdirSync, openSync, readFileSync, writeFileSync } from "node:fs";
import type { Readable, Writable } from "node:stream";
import { expect } from "vitest";
import { type Host, test } from "../harness/host.ts";
import { RandomBytes } from "../harness/random.ts";
import { isHusk, program } from "../harness/runtime.ts";

/** The bulk that is sent through: HUSK_TEST_MIB=1024 for the whole of it. */
const bulkBytes = Number(process.env["HUSK_TEST_MIB"] ?? 256) * 1024 * 1024;
const pieceBytes = 1024 * 1024;

/** Writes `total` bytes as fast as they are taken. */
async function pour(source: RandomBytes, total: number, into: Writable): Promise<void> {
  for (let left = total; left > 0; left -= pieceBytes) {
    if (!into.write(source.next(Math.min(left, pieceBytes)))) await once(into, "drain");
  }
  into.end();
}

/** Compares what is read with `expected` to the end, and answers how much there was. */
async function compare(stream: Readable, expected: RandomBytes): Promise<number> {
  let total = 0;
  for await (const chunk of stream as AsyncIterable<Buffer>) {
    if (!chunk.equals(expected.next(chunk.length))) throw new Error(`the bytes differ somewhere from ${total} on`);
    total += chunk.length;
  }
  return total;
}

/** A shell around the runtime: what pipes, files and closed descriptors it is given is the shell's. */
function shell(host: Host, line: string, bundle: string): Promise<{ status: number; stdout: string; stderr: string }> {
  const run = `"${program}" --root "${host.root}" run --bundle "${bundle}" ${host.name()}`;
  return host.start("sh", ["-c", line.replaceAll("RUN", run)], { cwd: host.folder }).ended();
}

test(`${bulkBytes / 1024 / 1024} MiB through stdin, cat and stdout compare equal`, async ({ host }) => {
  const source = new RandomBytes();
  const bundle = host.bundle({ process: { args: ["cat"] } });
  const cat = host.launch(["run", "--bundle", bundle.path, "bulk"], { stdin: "pipe", stdout: "raw" });
  if (cat.child.stdout === null) throw new Error("no stdout");
  const [, total] = await Promise.all([pour(source, bulkBytes, cat.stdin), compare(cat.child.stdout, source.again())]);
  expect(total).toBe(bulkBytes);
  expect(await cat.ended(600_000)).toEqual({ status: 0, stdout: "", stderr: "" });
}, 600_000);

test("closing stdout ends the program at once, with SIGPIPE", async ({ host }) => {
  const bundle = host.script("yes; echo $? >&2");
  const { status, stdout, stderr } = await shell(host, "{ RUN; echo $? >&2; } | head -c 4", bundle.path);
  expect({ status, stdout }).toEqual({ status: 0, stdout: "y\ny\n" });
  expect(stderr).toBe("141\n0\n");
});

test("an end of file on stdin reaches the program, whose output goes on", async ({ host }) => {
  const result = await shell(host, "printf 'one\\ntwo' | RUN | tr a-z A-Z", host.script("cat; echo; echo after").path);
  expect(result).toEqual({ status: 0, stdout: "ONE\nTWO\nAFTER\n", stderr: "" });
});

test("a stalled stdin holds up neither an exec nor a flood on stdout", async ({ host }) => {
  const bundle = host.script("echo ready; trap 'head -c 33554432 /dev/zero; exit 0' USR1; while :; do sleep 1000 & wait; done");
  const { id, foreground } = await host.running(bundle, { stdin: "pipe" });
  const stuffing = Buffer.alloc(pieceBytes);
  for (let written = 0; written < 64 * pieceBytes && foreground.stdin.write(stuffing); written += pieceBytes);
  expect(await host.ok("exec", id, "echo", "beside")).toBe("beside\n");
  await host.ok("kill", id, "USR1");
  const { status, stdout } = await foreground.ended();
  expect({ status, length: stdout.length }).toEqual({ status: 0, length: "ready\n".length + 33_554_432 });
});

test("a flood that nobody reads holds up neither an exec nor the end", async ({ host }) => {
  const bundle = host.script("echo ready; yes");
  const id = host.name();
  const foreground = host.launch(["run", "--bundle", bundle.path, id], { stdout: "raw" });
  await once(foreground.child.stdout ?? foreground.child, "readable"); // and never read from here on
  expect(await host.ok("exec", id, "echo", "beside")).toBe("beside\n");
  await host.ok("kill", id, "KILL");
  foreground.child.stdout?.destroy();
  expect(await foreground.exited()).toBe(137);
});

test("stdin may be closed, empty, or a file, and stdout a file that is appended to", async ({ host }) => {
  const count = host.script("wc -c; echo to stderr >&2").path;
  writeFileSync(host.path("in"), "from a file\n");
  expect(await shell(host, "RUN <&-", count)).toEqual({ status: 0, stdout: "0\n", stderr: "to stderr\n" });
  expect(await shell(host, "RUN </dev/null", count)).toEqual({ status: 0, stdout: "0\n", stderr: "to stderr\n" });
  expect(await shell(host, "{ echo before; RUN; echo after; } <in >out 2>err", count)).toEqual({ status: 0, stdout: "", stderr: "" });
  expect(readFileSync(host.path("out"), "utf8")).toBe("before\n12\nafter\n");
  expect(readFileSync(host.path("err"), "utf8")).toBe("to stderr\n");
});

test("what a program leaves unread on stdin is lost to nobody but it", async ({ host }) => {
  const bundle = host.script("read line; echo $line").path;
  expect((await shell(host, "{ echo first; sleep 0.1; yes 2>/dev/null | head -c 1000000; } | RUN", bundle)).stdout).toBe("first\n");
});

test("stdout and stderr may be closed", async ({ host }) => {
  const bundle = host.script("echo lost; echo lost >&2; echo $? >/done").path;
  expect((await shell(host, "RUN >&- 2>&-", bundle)).status).toBe(0);
  expect(readFileSync(`${bundle}/rootfs/done`, "utf8")).toMatch(/^[01]\n$/);
});

test("a line of 8 MiB, and output with neither a line's end nor text", async ({ host }) => {
  const bundle = host.script("head -c 8388608 /dev/zero | tr '\\0' x; printf '\\377\\000\\n\\r' >&2");
  const foreground = host.launch(["run", "--bundle", bundle.path, "line"]);
  const { status, stdout } = await foreground.ended();
  expect({ status, same: stdout === "x".repeat(8_388_608) }).toEqual({ status: 0, same: true });
  expect(foreground.stderr?.bytes()).toEqual(Buffer.from([0xff, 0, 0x0a, 0x0d]));
});

test("thousands of small files are all there", async ({ host }) => {
  const bundle = host.script("cd /many && find . -type f | wc -l && find . -type f | sort | xargs cat | md5sum");
  for (let folder = 0; folder < 20; folder++) {
    mkdirSync(`${bundle.rootfs}/many/${folder}`, { recursive: true });
    for (let file = 0; file < 100; file++) writeFileSync(`${bundle.rootfs}/many/${folder}/${file}`, `${folder}.${file}\n`);
  }
  const local = execFileSync("sh", ["-c", "cd many && LC_ALL=C find . -type f | LC_ALL=C sort | xargs cat | md5sum"], {
    cwd: bundle.rootfs,
  });
  expect((await host.run(bundle)).stdout).toBe(`2000\n${local.toString()}`);
});

test("a program that outlives its children's output ends when it ends", async ({ host }) => {
  // The grandchild keeps stdout open: runc's caller waits for it as a pipe's reader, and the container's end is its init's.
  const bundle = host.script("(sleep 1000 &) ; echo done; exit 5");
  expect(await host.run(bundle)).toEqual({ status: 5, stdout: "done\n", stderr: "" });
});

test.runIf(isHusk)("a full device as stdout reaches the program as an error, not as a hang", async ({ host }) => {
  const full = openSync("/dev/full", "w");
  host.defer(() => closeSync(full));
  const bundle = host.script("yes; echo $? >&2; exit 3");
  expect(await host.run(bundle, { stdout: full })).toEqual({ status: 3, stdout: "", stderr: "141\n" });
});
