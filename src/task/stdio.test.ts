import { execFileSync, spawn } from "node:child_process";
import { once } from "node:events";
import { closeSync, createReadStream, mkdtempSync, openSync, readFileSync, rmSync, writeFileSync, writeSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import type { Writable } from "node:stream";
import { text } from "node:stream/consumers";
import { afterEach, beforeEach, describe, expect, test } from "vitest";
import { TaskStdio } from "./stdio.ts";

const owner = { namespace: "ns", id: "c" };
const none = { stdin: "", stdout: "", stderr: "", terminal: false };

let folder: string;
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), "husk-stdio-"));
});
afterEach(() => rmSync(folder, { recursive: true }));

function fifo(name: string): string {
  const path = join(folder, name);
  execFileSync("mkfifo", [path]);
  return path;
}

/** What a reader gets of a FIFO that has a writer; it has opened it when this resolves: without a reader nor a writer, nothing is left to read. */
async function reading(path: string): Promise<{ readonly all: Promise<string> }> {
  const reader = createReadStream(path);
  await once(reader, "open");
  return { all: text(reader) };
}

function ended(stream: Writable, last: string): Promise<void> {
  return new Promise((resolve) => stream.end(last, resolve));
}

test("nothing named is nothing opened", async () => {
  const stdio = await TaskStdio.open(none, owner);
  expect(stdio.streams).toEqual({});
  stdio.close();
});

describe("a FIFO", () => {
  test("for output is no broken pipe to the container when its reader goes away and another comes", async () => {
    const stdout = fifo("out");
    const stdio = await TaskStdio.open({ ...none, stdout }, owner);
    const sink = await stdio.streams.stdout;
    const first = spawn("head", ["-c", "3", stdout], { stdio: ["ignore", "pipe", "inherit"] });
    sink?.write("one");
    expect(await text(first.stdout)).toBe("one");
    const second = await reading(stdout);
    await ended(sink as Writable, "two");
    expect(await second.all).toBe("two");
  });

  test("for output ends for its reader when the stream does", async () => {
    const [stdout, stderr] = [fifo("out"), fifo("err")];
    const stdio = await TaskStdio.open({ ...none, stdout, stderr }, owner);
    const [out, err] = [await reading(stdout), await reading(stderr)];
    await ended((await stdio.streams.stdout) as Writable, "out");
    await ended((await stdio.streams.stderr) as Writable, "err");
    expect(await Promise.all([out.all, err.all])).toEqual(["out", "err"]);
  });

  test("for input stays open between two writers, and ends after the last one once it was closed", async () => {
    const stdin = fifo("in");
    const stdio = await TaskStdio.open({ ...none, stdin }, owner);
    stdio.openStdin();
    const source = await stdio.streams.stdin;
    if (source === undefined) throw new Error("no stdin");
    const read = text(source);
    writeFileSync(stdin, "one,");
    writeFileSync(stdin, "two,");
    const last = openSync(stdin, "w");
    stdio.closeStdin();
    writeFileSync(last, "three");
    closeSync(last);
    expect(await read).toBe("one,two,three");
  });
});

test("an input that was closed before the process's start ends all the same, after what was written", async () => {
  const stdin = fifo("in");
  const stdio = await TaskStdio.open({ ...none, stdin }, owner);
  const writer = openSync(stdin, "r+"); // for writing alone, it would wait for the reader
  writeSync(writer, "early\n");
  stdio.closeStdin();
  stdio.openStdin();
  closeSync(writer);
  const source = await stdio.streams.stdin;
  if (source === undefined) throw new Error("no stdin");
  expect(await text(source)).toBe("early\n");
});

test("a terminal has one output", async () => {
  const stdio = await TaskStdio.open({ ...none, stdout: fifo("out"), stderr: join(folder, "none"), terminal: true }, owner);
  expect(Object.keys(stdio.streams)).toEqual(["stdout"]);
  stdio.close();
});

test("a file is appended to, with its folders made", async () => {
  const path = join(folder, "a/b/log");
  for (const line of ["one\n", "two\n"]) {
    const stdio = await TaskStdio.open({ ...none, stdout: `file://${path}` }, owner);
    await ended((await stdio.streams.stdout) as Writable, line);
  }
  expect(readFileSync(path, "utf8")).toBe("one\ntwo\n");
});

describe("a log driver", () => {
  function driver(script: string): string {
    const path = join(folder, "driver");
    writeFileSync(path, `#!/bin/sh\n${script}\n`, { mode: 0o755 });
    return path;
  }

  test("gets its arguments, whose container it is, and both outputs to their ends", async () => {
    const out = fifo("done");
    const path = driver(`exec 5>&-; { echo "$@ $CONTAINER_NAMESPACE $CONTAINER_ID"; cat <&3; cat <&4; } > ${out}`);
    const uri = `binary://${path}?-x=y&flag`;
    const read = text(createReadStream(out));
    const stdio = await TaskStdio.open({ ...none, stdout: uri, stderr: uri }, owner);
    await ended((await stdio.streams.stdout) as Writable, "to stdout\n");
    await ended((await stdio.streams.stderr) as Writable, "to stderr\n");
    stdio.close();
    expect(await read).toBe("-x y flag ns c\nto stdout\nto stderr\n");
  });

  test("that is missing, or ends at once, is an error that names it", async () => {
    const missing = TaskStdio.open({ ...none, stdout: "binary:///no/such/driver" }, owner);
    await expect(missing).rejects.toThrow("cannot start the log driver /no/such/driver");
  });

  test("that ends breaks the output's pipe", async () => {
    const stdio = await TaskStdio.open({ ...none, stdout: `binary://${driver("exec 5>&-; head -c 1 <&3 > /dev/null")}` }, owner);
    const sink = await stdio.streams.stdout;
    const closed = new Promise((resolve) => sink?.once("close", resolve));
    sink?.write("x");
    await closed;
    expect(sink?.destroyed).toBe(true);
  });
});

test.each(["relative", "http://x/y"])("%s is neither a path, nor a file, nor a driver", async (stdout) => {
  await expect(TaskStdio.open({ ...none, stdout }, owner)).rejects.toThrow("is neither an absolute path, nor file://, nor binary://");
});

test("one stream that cannot be opened leaves none open", async () => {
  const stdout = fifo("out");
  await expect(TaskStdio.open({ ...none, stdout, stderr: join(folder, "none/x") }, owner)).rejects.toThrow("cannot open the output");
  // Nobody else has it open for reading: a writer that does not wait is refused.
  expect(() => openSync(stdout, "ax")).toThrow();
});
