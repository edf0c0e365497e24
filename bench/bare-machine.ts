/**
 * A bare virtual machine to measure against: husk's own QEMU command line for a sandbox, as it really was, without the devices and the confinement, and with
 * an initramfs whose init prints a line and switches off (init.c). It can be saved once, and restored again and again.
 */
import { type ChildProcess, spawn, spawnSync } from "node:child_process";
import { closeSync, mkdirSync, openSync, readdirSync, readFileSync, readlinkSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import type { Duplex } from "node:stream";
import { QmpClient } from "../src/qmp/qmp.ts";
import { end } from "./bench-host.ts";
import { time } from "./program.ts";

/** The options of husk's command line that a bare machine has too, each with one value. */
const kept = new Set(["-machine", "-accel", "-cpu", "-smp", "-m"]);

/** QEMU leaves out of a saved state what is in a shared file, which is the guest's memory. */
const capabilities = {
  capabilities: [
    { capability: "x-ignore-shared", state: true },
    { capability: "events", state: true },
  ],
} as const;

/** The descriptors of QEMU's control socket and of the state. */
const [control, state] = [3, 4];

export class BareMachine {
  readonly #program: string;
  readonly #args: readonly string[];
  readonly #kernel: string;
  readonly #initrd: string;
  readonly #append: string;
  readonly #folder: string;
  /** The size of its memory, in MiB. */
  readonly mebibytes: number;

  /** The machine beside the running sandbox whose supervisor works in `root`. Throws where there is no such sandbox. */
  static beside(root: string, folder: string): BareMachine {
    const { pid, command } = qemuOf(root);
    const [program, ...words] = command;
    if (program === undefined) throw new Error(`no QEMU runs for a sandbox below ${root}`);
    const valueOf = (option: string): string => words[words.indexOf(option) + 1] ?? "";
    // Files are handed to QEMU as descriptors.
    const named = (value: string): string => {
      const descriptor = /^\/proc\/self\/fd\/(\d+)$/.exec(value)?.[1];
      return descriptor === undefined ? value : readlinkSync(`/proc/${pid}/fd/${descriptor}`);
    };
    const args = words.flatMap((word, index) => (kept.has(word) ? [word, words[index + 1] ?? ""] : []));
    return new BareMachine(program, args, named(valueOf("-kernel")), valueOf("-append"), folder);
  }

  private constructor(program: string, args: readonly string[], kernel: string, append: string, folder: string) {
    this.#program = program;
    this.#args = [...args, "-nodefaults", "-no-user-config", "-display", "none", "-no-reboot"];
    this.#kernel = kernel;
    this.#append = append;
    this.#folder = folder;
    this.#initrd = makeInitramfs(folder);
    this.mebibytes = mebibytesOf(args[args.indexOf("-m") + 1] ?? "");
  }

  /** Boots it, and answers the milliseconds to init's first word. */
  async boot(): Promise<number> {
    const { marks } = await time(this.#program, [...this.#machine("own"), ...this.#guest("")], { until: ["ready"] });
    return marks[0] ?? Number.NaN;
  }

  /** Boots it, and saves it where its init waits. */
  async save(): Promise<void> {
    const qemu = this.#start([...this.#machine("shared"), ...this.#guest(" -- wait"), ...this.#controlled], "ignore");
    try {
      await word(qemu, "booted");
      await using qmp = await QmpClient.open(qemu.stdio[control] as Duplex);
      await qmp.execute("stop");
      await this.#migrate(qmp, "migrate", `exec:cat > ${this.#state}`);
    } finally {
      await end(qemu, "SIGKILL");
    }
  }

  /** Restores it, with its memory mapped from the file and private, and answers the milliseconds from QEMU's start to init's answer. */
  async restore(): Promise<number> {
    const began = performance.now();
    const file = openSync(this.#state, "r");
    const qemu = this.#start([...this.#machine("private"), ...this.#controlled, "-incoming", "defer"], file);
    closeSync(file);
    try {
      const answer = word(qemu, "ready");
      answer.catch(() => {}); // what fails before it is awaited says more
      await using qmp = await QmpClient.open(qemu.stdio[control] as Duplex);
      await this.#migrate(qmp, "migrate-incoming", `fd:${state}`);
      await qmp.execute("cont");
      qemu.stdin?.write("\n");
      await answer;
      return performance.now() - began;
    } finally {
      await end(qemu, "SIGKILL");
    }
  }

  get #state(): string {
    return join(this.#folder, "bare.state");
  }

  get #memory(): string {
    return join(this.#folder, "bare.ram");
  }

  get #controlled(): string[] {
    return ["-chardev", `socket,id=control,fd=${control}`, "-mon", "chardev=control,mode=control"];
  }

  /** Its memory: its own alone, or mapped from the file that is saved, which gets what is written into it where it is shared. */
  #machine(memory: "own" | "shared" | "private"): string[] {
    const kind = {
      own: "memory-backend-ram",
      shared: `memory-backend-file,mem-path=${this.#memory},share=on`,
      private: `memory-backend-file,mem-path=${this.#memory},share=off`,
    }[memory];
    return [...this.#args, "-object", `${kind},id=ram,size=${this.mebibytes}M`, "-serial", "stdio"];
  }

  /** What it boots; a machine that is restored has that in its memory, and QEMU would write it anew. */
  #guest(more: string): string[] {
    return ["-kernel", this.#kernel, "-initrd", this.#initrd, "-append", `${this.#append}${more}`];
  }

  #start(words: readonly string[], file: number | "ignore"): ChildProcess {
    const qemu = spawn(this.#program, words, { stdio: ["pipe", "pipe", "inherit", "pipe", file] });
    qemu.stdin?.on("error", () => {}); // it may end before it has read
    return qemu;
  }

  async #migrate(qmp: QmpClient, command: "migrate" | "migrate-incoming", uri: string): Promise<void> {
    await qmp.execute("migrate-set-capabilities", capabilities);
    const over = (event: { readonly status: string }): boolean => event.status === "completed" || event.status === "failed";
    const { status } = await qmp.executeUntil(command, { uri }, "MIGRATION", over);
    if (status !== "completed") throw new Error(`QEMU's ${command} failed`);
  }
}

/** Waits until a machine's console has said a word. */
async function word(qemu: ChildProcess, text: string): Promise<void> {
  if (qemu.stdout === null) throw new Error("QEMU has no console");
  let said = "";
  for await (const chunk of qemu.stdout as AsyncIterable<Buffer>) {
    said += chunk.toString();
    if (said.includes(text)) return;
  }
  throw new Error(`QEMU ended before its guest said ${text}: ${said}`);
}

/** The memory in a QEMU command line's -m, in MiB. */
function mebibytesOf(size: string): number {
  const found = /^(\d+)M(?:,|$)/.exec(size)?.[1];
  if (found === undefined) throw new Error("expected -m with a number of mebibytes in QEMU's command line");
  return Number(found);
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
