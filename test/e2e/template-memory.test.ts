/** The memory of a template: one for all clones that share nothing with the host, each of which keeps to itself what it writes. */
import { createHash } from "node:crypto";
import { existsSync, readdirSync, readFileSync, readlinkSync, statSync } from "node:fs";
import { describe, expect } from "vitest";
import type { Bundle } from "../harness/bundle.ts";
import { onDisk } from "../harness/disk.ts";
import { type Host, test } from "../harness/host.ts";
import { isHusk } from "../harness/runtime.ts";
import { findPart } from "../harness/sandbox-processes.ts";
import { cloned, Templates } from "../harness/template-host.ts";

/** A clone that runs, and its memory as QEMU has it. */
interface Clone {
  readonly id: string;
  readonly qemu: number;
  /** What QEMU's descriptor of its memory is. */
  readonly name: string;
  readonly path: string;
  readonly inode: number;
  /** Ends it. */
  end(): Promise<void>;
}

const mebibyte = 1024 ** 2;

async function clone(host: Host, templates: Templates, bundle: Bundle): Promise<Clone> {
  const { id, foreground } = await host.running(bundle, { env: templates.env, stdin: "pipe" });
  const qemu = findPart(host, id, "qemu")?.pid ?? 0;
  const paths = readdirSync(`/proc/${qemu}/fd`).map((number) => `/proc/${qemu}/fd/${number}`);
  const path = paths.find((one) => /^\/memfd:(memory|husk-[0-9a-f]{32})/.test(readlinkSync(one))) ?? "";
  const end = async (): Promise<void> => {
    foreground.child.stdin?.end();
    expect(await foreground.ended()).toEqual({ status: 0, stdout: "ready\n", stderr: "" });
  };
  return { id, qemu, name: readlinkSync(path), path, inode: statSync(path).ino, end };
}

function sha256(path: string): string {
  return createHash("sha256").update(readFileSync(path)).digest("hex");
}

/** How much the process has in common with others of the files whose names begin so, in MiB. */
function shared(pid: number, name: string): number {
  let kibibytes = 0;
  let counts = false;
  for (const line of readFileSync(`/proc/${pid}/smaps`, "utf8").split("\n")) {
    if (/^[0-9a-f]+-[0-9a-f]+ /.test(line)) counts = line.includes(` ${name}`);
    else if (counts) kibibytes += Number(/^Shared_(?:Clean|Dirty): +(\d+) kB$/.exec(line)?.[1] ?? 0);
  }
  return kibibytes / 1024;
}

describe.runIf(isHusk)("the memory of a template", () => {
  test("is one for all clones, and stays as it is, whatever they write", async ({ host }) => {
    const templates = new Templates(host);
    const bundle = onDisk(host, "dd if=/dev/urandom of=/dev/shm/x bs=1M count=24 2>/dev/null; echo ready; cat", {
      root: { readonly: true },
    });
    const [one, other] = [await clone(host, templates, bundle), await clone(host, templates, onDisk(host, "echo ready; cat"))];
    expect(one.name).toMatch(/^\/memfd:husk-[0-9a-f]{32}-[0-9a-f]{8}-[0-9a-f]{16} \(deleted\)$/);
    expect([other.name, other.inode]).toEqual([one.name, one.inode]);
    // Not a byte is another one, and what a clone takes into use is not taken a second time, as a page of zeroes of the template's.
    expect(sha256(one.path)).toBe(sha256(templates.file("ram")));
    const resident = (path: string): number => (statSync(path).blocks * 512) / mebibyte;
    expect(resident(one.path)).toBeLessThan(resident(templates.file("ram")) + 8);
    for (const { qemu } of [one, other]) expect(shared(qemu, "/memfd:husk-")).toBeGreaterThan(4);
    for (const { id } of [one, other]) expect(await host.ok("exec", id, "echo", "alive")).toBe("alive\n");
    await one.end();
    // It was the one that others found the memory by.
    const next = await clone(host, templates, onDisk(host, "echo ready; cat"));
    expect(next.name).toBe(other.name);
    expect(next.inode).not.toBe(other.inode);
    expect(await host.ok("exec", other.id, "echo", "alive")).toBe("alive\n");
    await other.end();
    await next.end();
  });

  test("is a copy for a clone that shares folders with the host", async ({ host }) => {
    const templates = new Templates(host);
    const one = await clone(host, templates, host.script("echo ready; cat"));
    expect(one.name).toBe("/memfd:memory (deleted)");
    expect(existsSync(templates.file("holder"))).toBe(false);
    await one.end();
  });

  test("outlives the template: clones go on, and the next sandbox has a new one", async ({ host }) => {
    const templates = new Templates(host);
    const before = await clone(host, templates, onDisk(host, "echo ready; cat"));
    // The file is not looked at as long as somebody has its memory.
    templates.damage();
    const beside = await clone(host, templates, onDisk(host, "echo ready; cat"));
    expect(beside.inode).toBe(before.inode);
    const { stdout: key } = await host.launch(["template", "rm", ...templates.names], { env: templates.env }).ended();
    expect([key.trim().length, templates.names]).toEqual([32, []]);
    const after = await clone(host, templates, onDisk(host, "echo ready; cat"));
    expect(after.inode).not.toBe(before.inode);
    for (const { id } of [before, beside, after]) expect(await host.ok("exec", id, "echo", "alive")).toBe("alive\n");
    for (const one of [before, beside, after]) await one.end();
  });

  test("that is damaged when nobody has it costs a boot, and a new template", async ({ host }) => {
    const templates = new Templates(host);
    const bundle = onDisk(host, "echo hello");
    expect((await templates.run(bundle)).trace).toContain(cloned);
    templates.damage();
    await templates.findDamaged(bundle);
  });
});
