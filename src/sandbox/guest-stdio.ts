/** The standard streams of a process, in the words of the agent's API. */
import type { Stdio } from "../gen/agent/v1/agent.ts";
import type { ProcessSpec } from "./container.ts";

/** What the guest's process is to have as its standard streams. */
export function guestStdio({
  terminal,
  plainNewlines,
  streams,
  size,
}: Pick<ProcessSpec, "terminal" | "plainNewlines" | "size"> & { readonly streams: readonly string[] }): Stdio {
  return {
    terminal,
    plainNewlines,
    stdin: streams.includes("stdin"),
    stdout: streams.includes("stdout"),
    stderr: !terminal && streams.includes("stderr"),
    size: size ?? undefined,
  };
}
