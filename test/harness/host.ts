/**
 * The host of one test: folders of its own, the runtime under test, the programs it started, and the leak check at its end. Every end-to-end test is
 * written with this file's `test`, which hands it a host.
 */
import { mkdtempSync, readdirSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { setTimeout as delay } from "node:timers/promises";
import { test as base } from "vitest";
import { type Bundle, makeBundle } from "./bundle.ts";
import { Feed } from "./feed.ts";
import { Program, type ProgramOptions, type Result } from "./program.ts";
import { globalFlags, program } from "./runtime.ts";
import { compareSnapshots, type Snapshot, takeSnapshot } from "./snapshot.ts";
import type { Json } from "./spec.ts";

/** Everything of an ended container must be given back within this (issue's bound). */
const givenBackMs = 5000;

export interface State {
  readonly ociVersion: string;
  readonly id: string;
  readonly status: string;
  readonly pid: number;
  readonly bundle: string;
  readonly rootfs: string;
  readonly created: string;
  readonly annotations?: Readonly<Record<string, string>>;
}

export class Host {
  readonly folder: string;
  /** The runtime's root folder (--root). */
  readonly root: string;
  readonly #before: Snapshot;
  readonly #programs: Program[] = [];
  readonly #cleanups: (() => void | Promise<void>)[] = [];
  #count = 0;

  constructor() {
    this.#before = takeSnapshot();
    this.folder = mkdtempSync(join(tmpdir(), "husk-e2e-"));
    this.root = join(this.folder, "root");
  }

  /** A name that no other container, bundle or file of this test has. */
  name(prefix = "c"): string {
    return `${prefix}${++this.#count}`;
  }

  /** A path below the test's folder. */
  path(name: string): string {
    return join(this.folder, name);
  }

  /** A bundle that runs the default spec with `changes`. */
  bundle(changes: Json = {}): Bundle {
    return makeBundle(this.path(this.name("bundle")), changes);
  }

  /** A bundle that runs `script` with its shell. */
  script(script: string, changes: Json = {}): Bundle {
    const { process, ...rest } = changes;
    return this.bundle({ ...rest, process: { ...(process as Json | undefined), args: ["sh", "-c", script] } });
  }

  /** Starts the runtime. */
  launch(args: readonly string[], options: ProgramOptions = {}): Program {
    return this.start(program, [...globalFlags, "--root", this.root, ...args], options);
  }

  /** Starts any program; it is killed at the test's end, which fails for it. */
  start(command: string, args: readonly string[], options: ProgramOptions = {}): Program {
    const started = new Program(command, args, options);
    this.#programs.push(started);
    return started;
  }

  /** Runs the runtime to its end. */
  runtime(...args: readonly string[]): Promise<Result> {
    return this.launch(args).ended();
  }

  /** Runs the runtime, and throws with what it said where it does not succeed. */
  async ok(...args: readonly string[]): Promise<string> {
    const { status, stdout, stderr } = await this.runtime(...args);
    if (status !== 0) throw new Error(`${args.join(" ")} ended with ${status}: ${stderr}`);
    return stdout;
  }

  /** Runs a bundle in the foreground to its end. */
  run(bundle: Bundle, options: ProgramOptions = {}): Promise<Result> {
    return this.launch(["run", "--bundle", bundle.path, this.name()], options).ended();
  }

  /** Runs a bundle in the foreground; answers once its standard output says "ready". */
  async running(
    bundle: Bundle,
    options: ProgramOptions & { readonly id?: string } = {},
  ): Promise<{ readonly id: string; readonly foreground: Program }> {
    const id = options.id ?? this.name();
    const foreground = this.launch(["run", "--bundle", bundle.path, id], options);
    try {
      await foreground.stdout?.until("ready\n");
    } catch (cause) {
      throw new Error(`the container never got ready: ${foreground.stderr?.text() ?? ""}`, { cause });
    }
    return { id, foreground };
  }

  /** Creates a container, and answers once `create` has ended; the program answered holds the container's streams. */
  async create(
    bundle: Bundle,
    flags: readonly string[] = [],
    options: ProgramOptions = {},
  ): Promise<{ readonly id: string; readonly program: Program }> {
    const id = this.name();
    const program = this.launch(["create", "--bundle", bundle.path, ...flags, id], options);
    const status = await program.exited();
    if (status !== 0) throw new Error(`create ended with ${status}: ${(await program.ended()).stderr}`);
    return { id, program };
  }

  async state(id: string): Promise<State> {
    return JSON.parse(await this.ok("state", id)) as State;
  }

  /** Waits until `done` says so: for what others do, and nothing tells of. Throws where it takes longer than everything of husk's may. */
  async until(done: () => boolean | Promise<boolean>, withinMs = givenBackMs): Promise<void> {
    const deadline = Date.now() + withinMs;
    while (!(await done())) {
      if (Date.now() > deadline) throw new Error(`not so within ${withinMs} ms: ${done.toString()}`);
      await delay(20);
    }
  }

  /** A pipe to write to, for a program that outlives the one it was started by. */
  feed(): Feed {
    const feed = new Feed(this.path(this.name("feed")));
    this.defer(() => feed.close());
    return feed;
  }

  /** The environment in which husk reads `toml` as its whole configuration, without zygotes where it says nothing of them: see test/fixtures/husk.toml. */
  configuration(toml: string): Readonly<Record<string, string>> {
    const file = this.path(this.name("config"));
    const section = "[template]\n";
    const cold = toml.includes(section) ? toml.replace(section, `${section}warm_s = 0\n`) : `${toml}${section}warm_s = 0\n`;
    writeFileSync(file, toml.includes("warm_s") ? toml : cold);
    return { HUSK_CONFIG: file };
  }

  /** What the test did to the host itself, and undoes at its end, last first, whether or not it passes. */
  defer(cleanup: () => void | Promise<void>): void {
    this.#cleanups.push(cleanup);
  }

  /** Undoes what the test did itself, and ends what it has left. Throws with what that was, unless the test failed, which says enough. */
  async close(failed: boolean): Promise<void> {
    if (failed) await this.#endAll();
    for (const cleanup of this.#cleanups.toReversed()) await cleanup();
    const leaks = failed ? [] : [...this.#stillRunning(), ...(await this.#leaks())];
    if (leaks.length > 0) await this.#endAll();
    rmSync(this.folder, { recursive: true, force: true });
    if (leaks.length > 0) throw new Error(`left behind on the host:\n${leaks.join("\n")}`);
  }

  async #endAll(): Promise<void> {
    for (const started of this.#programs) if (started.running) started.signal("SIGKILL");
    for (const id of entries(this.root)) await this.runtime("delete", "--force", id);
  }

  #stillRunning(): string[] {
    return this.#programs.filter((started) => started.running).map((started) => `+ program ${started.child.spawnargs.join(" ")}`);
  }

  /** What differs from before. The kernel gives some things back a moment after the last process has ended, and has no event for all of them. */
  async #leaks(): Promise<string[]> {
    const deadline = Date.now() + givenBackMs;
    for (;;) {
      const own = `+ file ${this.folder}`;
      const leaks = compareSnapshots(this.#before, takeSnapshot()).filter((line) => line !== own);
      leaks.push(...entries(this.root).map((entry) => `+ file ${join(this.root, entry)}`));
      if (leaks.length === 0 || Date.now() > deadline) return leaks;
      await delay(20);
    }
  }
}

/** Vitest's test, with a host of its own for each. */
export const test = base.extend("host", async ({ task }, { onCleanup }) => {
  const host = new Host();
  onCleanup(() => host.close(task.result?.state === "fail" || (task.result?.errors?.length ?? 0) > 0));
  return host;
});

function entries(folder: string): string[] {
  try {
    return readdirSync(folder);
  } catch {
    return []; // the runtime makes it when it needs it
  }
}
