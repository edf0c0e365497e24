/** A real terminal around a program: what a person at a keyboard does and sees. */
import { join } from "node:path";
import type { Writable } from "node:stream";
import type { Host } from "./host.ts";
import type { Output } from "./output.ts";
import type { Program, ProgramOptions } from "./program.ts";
import { globalFlags, program } from "./runtime.ts";

const script = join(import.meta.dirname, "terminal.py");

/** Starts the terminal's own program: a test's host, say. */
export interface Starter {
  readonly start: (command: string, args: readonly string[], options: ProgramOptions) => Program;
}

export class Terminal {
  readonly process: Program;
  readonly screen: Output;

  /** Starts the runtime on a new terminal of 24 rows and 80 columns. */
  static run(host: Host, args: readonly string[]): Terminal {
    return Terminal.around(host, [program, ...globalFlags, "--root", host.root, ...args]);
  }

  /** Starts any program on a new terminal. */
  static around(host: Starter, command: readonly string[]): Terminal {
    return new Terminal(host, ["run", ...command]);
  }

  /** Listens for a terminal's master at `path`, as an engine does with --console-socket. */
  static async receive(host: Starter, path: string): Promise<Terminal> {
    const terminal = new Terminal(host, ["receive", path]);
    await terminal.process.stderr?.until("listening\n");
    return terminal;
  }

  private constructor(host: Starter, args: readonly string[]) {
    this.process = host.start("/usr/bin/python3", [script, ...args], { stdin: "pipe", extra: ["pipe"] });
    if (this.process.stdout === undefined) throw new Error("the terminal has no output");
    this.screen = this.process.stdout;
  }

  type(text: string): void {
    this.process.stdin.write(text);
  }

  /** Types a command, and answers what stands between its echo and the prompt that follows, without carriage returns. */
  async command(line: string, prompt = "$ "): Promise<string> {
    this.type(`${line}\n`);
    await this.screen.until(`${line}\r\n`);
    const shown = await this.screen.until(prompt);
    return shown.slice(0, -prompt.length).replaceAll("\r\n", "\n");
  }

  resize(rows: number, columns: number): void {
    (this.process.child.stdio[3] as Writable).write(`${rows} ${columns}\n`);
  }

  /** Takes the terminal away, as a closed window does. */
  hangUp(): void {
    this.process.stdin.end();
  }
}
