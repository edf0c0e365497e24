/** A container for checkpoints: what it knows shows whether it is the one that it was. */
import { expect } from "vitest";
import type { Bundle } from "./bundle.ts";
import type { Host } from "./host.ts";
import type { Program } from "./program.ts";

/** Answers each line with how many there were. What it counts is in the shell's memory; the file that it writes to has no name any more. */
export const counter = `exec 3<>/tmp/open; rm /tmp/open; i=0; echo ready
  while read line; do i=$((i+1)); echo "$line" >&3; echo "$i $line"; done; cat /proc/self/fd/3`;

/** Says a line to a counter, and answers what it says to that. */
export async function say(to: Program, line: string): Promise<string> {
  to.stdin.write(`${line}\n`);
  return (await to.stdout?.until(`${line}\n`)) ?? "";
}

/** A counter that has counted to 2, under the id that is answered. */
export async function counting(host: Host, bundle: Bundle): Promise<{ readonly id: string; readonly foreground: Program }> {
  const running = await host.running(bundle, { stdin: "pipe" });
  expect([await say(running.foreground, "a"), await say(running.foreground, "b")]).toEqual(["1 a\n", "2 b\n"]);
  return running;
}

/** Restores a checkpoint in the foreground. */
export function restore(host: Host, bundle: Bundle, folder: string, id = host.name(), flags: readonly string[] = []): Program {
  return host.launch(["restore", "--bundle", bundle.path, "--image-path", folder, ...flags, id], { stdin: "pipe" });
}

/** Ends a counter's input, at which it ends itself, and says all that it was ever told. */
export async function finish(program: Program): Promise<string> {
  program.stdin.end();
  const { status, stdout } = await program.ended();
  expect(status).toBe(0);
  return stdout;
}
