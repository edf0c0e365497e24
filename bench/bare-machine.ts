/**
 * A bare virtual machine to measure against: husk's own QEMU command line for a sandbox, as it really was, without the devices and the
 * confinement, and with an initramfs whose init prints a line and switches off (init.c).
 */
import { spawnSync } from "node:child_process";
import { mkdirSync, readdirSync, readFileSync, readlinkSync, writeFileSync } from "node:fs";
import { join } from "node:path";

export interface BareMachine {
  readonly program: string;
  readonly args: readonly string[];
}

/** The options of husk's command line that a bare machine has too, each with one value. */
const kept = new Set(["-machine", "-accel", "-cpu", "-smp", "-m", "-object", "-kernel", "-append"]);

/** The bare machine beside the running sandbox whose supervisor works in `root`. Throws where there is no such sandbox. */
export function bareMachine(root: string, folder: string): BareMachine {
  const { pid, command } = qemuOf(root);
  const [program, ...words] = command;
  if (program === undefined) throw new Error(`no QEMU runs for a sandbox below ${root}`);
  const args: string[] = [];
  for (const [index, word] of words.entries()) {
    const value = words[index + 1];
    if (!kept.has(word) || value === undefined) continue;
    // Files are handed to QEMU as descriptors.
    const descriptor = /^\/proc\/self\/fd\/(\d+)$/.exec(value)?.[1];
    args.push(word, descriptor === undefined ? value : readlinkSync(`/proc/${pid}/fd/${descriptor}`));
  }
  args.push("-nodefaults", "-no-user-config", "-display", "none", "-no-reboot", "-serial", "stdio", "-initrd", makeInitramfs(folder));
  return { program, args };
}

interface Process {
  readonly pid: string;
  readonly command: readonly string[];
}

/** The QEMU below the supervisor that was started with `--root ROOT`. */
function qemuOf(root: string): Process {
  const processes = readdirSync("/proc")
    .filter((name) => /^\d+$/.test(name))
    .map((pid) => ({ pid, command: read(`/proc/${pid}/cmdline`).split("\0").slice(0, -1) }));
  const supervisors = processes.filter(({ command }) => command.includes(root) && command.some((word) => word.endsWith("/supervisor.js")));
  const below = new Set(supervisors.map(({ pid }) => pid));
  // A child's number may be below its parent's: look until nothing is added.
  for (let size = -1; size !== below.size; ) {
    size = below.size;
    for (const { pid } of processes) {
      if (below.has(parentOf(pid))) below.add(pid);
    }
  }
  return processes.find(({ pid, command }) => below.has(pid) && command[0]?.includes("qemu-system")) ?? { pid: "", command: [] };
}

function parentOf(pid: string): string {
  return /^PPid:\s+(\d+)$/m.exec(read(`/proc/${pid}/status`))?.[1] ?? "";
}

/** A file of /proc; nothing where its process has just ended. */
function read(path: string): string {
  try {
    return readFileSync(path, "utf8");
  } catch {
    return "";
  }
}

function makeInitramfs(folder: string): string {
  const tree = join(folder, "bare");
  const file = join(folder, "bare.cpio");
  mkdirSync(tree, { recursive: true });
  run("gcc", ["-static", "-nostdlib", "-Os", "-s", "-o", join(tree, "init"), join(import.meta.dirname, "init.c")], "");
  writeFileSync(file, run("cpio", ["--create", "--format=newc", "--quiet", "--directory", tree], "init\n"));
  return file;
}

function run(program: string, args: readonly string[], input: string): Buffer {
  const { status, stdout, stderr, error } = spawnSync(program, args, { input });
  if (status !== 0) throw new Error(`${program} failed: ${error?.message ?? stderr.toString().trim()}`);
  return stdout;
}
