/** The hooks that run on the host: prestart, createRuntime, poststart, poststop (runtime-spec, config.md, "POSIX-platform Hooks"). */
import { spawn } from "node:child_process";
import { explain, HuskError } from "../errors.ts";
import { Tail } from "./tail.ts";

/**
 * One hook, as the spec has it. `args` are execv's, so args[0] is the program's own name; `timeout` is in seconds. Without `env` it has husk's own environment,
 * as with runc, since hooks are written for that.
 */
export interface HostHook {
  readonly path: string;
  readonly args?: readonly string[] | undefined;
  readonly env?: readonly string[] | undefined;
  readonly timeout?: number | undefined;
}

/**
 * Runs the hooks in order, each with `state` as JSON on its standard input and the bundle as its working directory.
 * Throws `hook` at the first that cannot be started, fails or takes longer than its timeout, with what it said.
 */
export async function runHooks(name: string, hooks: readonly HostHook[] | undefined, state: object, bundle: string): Promise<void> {
  for (const [index, hook] of (hooks ?? []).entries()) await runHook(describe(name, index, hook), hook, state, bundle);
}

/** Runs the poststop hooks: each of them, and none keeps a container from being removed. `warn` is told which failed. */
export async function runPoststop(
  hooks: readonly HostHook[] | undefined,
  state: object,
  bundle: string,
  warn: (message: string) => void,
): Promise<void> {
  for (const [index, hook] of (hooks ?? []).entries()) {
    await runHook(describe("poststop", index, hook), hook, state, bundle).catch((error: unknown) => warn(explain(error)));
  }
}

/** What failed, in runc's words. */
function describe(name: string, index: number, { path }: HostHook): string {
  return `error running ${name} hook #${index}: ${path}`;
}

function runHook(what: string, hook: HostHook, state: object, bundle: string): Promise<void> {
  return new Promise((resolve, reject) => {
    const [argv0, ...args] = hook.args ?? [hook.path];
    const child = spawn(hook.path, args, {
      argv0: argv0 ?? hook.path,
      cwd: bundle,
      env: hook.env === undefined ? process.env : environment(hook.env),
      stdio: ["pipe", "pipe", "pipe"],
      detached: true, // a group of its own, so that a timeout ends what it started as well
    });
    const said = new Tail();
    let late = false;
    const timer =
      hook.timeout === undefined
        ? undefined
        : setTimeout(() => {
            late = true;
            if (child.pid !== undefined) process.kill(-child.pid, "SIGKILL");
          }, hook.timeout * 1000);
    child.stdout.on("data", (chunk: Buffer) => said.add(chunk));
    child.stderr.on("data", (chunk: Buffer) => said.add(chunk));
    child.stdin.on("error", () => {}); // a hook need not read its state
    child.stdin.end(JSON.stringify(state));
    child.once("error", (cause) => {
      clearTimeout(timer);
      reject(new HuskError("hook", `${what} cannot be started`, { cause }));
    });
    child.once("exit", (code, signal) => {
      clearTimeout(timer);
      if (code === 0) return resolve();
      const how = late ? `did not end within ${hook.timeout} s` : code === null ? `was killed by ${signal}` : `ended with status ${code}`;
      const output = said.lines(3).join(" | ");
      reject(new HuskError("hook", `${what} ${how}${output === "" ? "" : `: ${output}`}`));
    });
  });
}

function environment(pairs: readonly string[]): NodeJS.ProcessEnv {
  return Object.fromEntries(
    pairs.map((pair) => {
      const at = pair.indexOf("=");
      return at === -1 ? [pair, ""] : [pair.slice(0, at), pair.slice(at + 1)];
    }),
  );
}
