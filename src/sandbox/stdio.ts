/**
 * The standard streams of one process, between what the host has for them (a stand-in's socket, a FIFO) and the agent's streams. Each direction has
 * its own flow control from end to end: whoever is slow slows down the other end of that stream, and nothing else.
 */
import type { Readable, Writable } from "node:stream";
import type { AgentClient } from "../agent/agent-client.ts";
import { OutputKind, type ReadOutputRequest } from "../gen/agent/v1/agent.ts";
import type { Outputs } from "./outputs.ts";

/** The process a stream belongs to. */
export interface ProcessTarget {
  readonly containerId: string;
  /** "" is the container's init. */
  readonly processId: string;
}

/**
 * Carries what `source` reads to the process's standard input; the source's end is the end of file. Where the process closed its input, the
 * source is destroyed, which tells whoever writes. Resolves when nothing more will be carried; never rejects, since a lost input is the
 * process's end or the channel's, and both are reported by others.
 */
export function pumpStdin(agent: AgentClient, target: ProcessTarget, source: Readable): Promise<void> {
  if (agent.closed) {
    source.destroy();
    return Promise.resolve();
  }
  return new Promise((resolve) => {
    const call = agent.writeStdin(() => {
      source.destroy();
      resolve();
    });
    call.begin(target);
    source.on("data", (data: Buffer) => {
      if (!call.write(data)) source.pause();
    });
    call.onDrain(() => source.resume());
    source.on("end", () => call.end());
    source.on("error", () => call.end());
    source.on("close", () => call.end());
    if (source.readableEnded || source.destroyed) call.end(); // it ended before anybody listened
  });
}

/**
 * Carries one output of the process to `sink`, and ends it after the last byte; one that ends because its process does, after `told` as well, where that is
 * given. Where nobody reads it any more, which its close tells, the process's writing end breaks as a pipe does (SIGPIPE). Resolves when every byte has left,
 * or nobody wants them; never rejects.
 */
export function pumpOutput(
  agent: AgentClient,
  target: ProcessTarget,
  output: "stdout" | "stderr",
  sink: Writable,
  outputs: Outputs,
  told?: Promise<void>,
): Promise<void> {
  const kind = output === "stdout" ? OutputKind.OUTPUT_KIND_STDOUT : OutputKind.OUTPUT_KIND_STDERR;
  const request: ReadOutputRequest = { ...target, output: kind };
  if (agent.closed) return finish(sink, told);
  return new Promise((resolve) => {
    const call = agent.readOutput(request);
    const progress = outputs.begin(target, kind, () => call.resume());
    call.on("data", (data) => {
      progress.add(data.length);
      if (!sink.write(data) && !progress.isHurried) call.pause();
    });
    sink.on("drain", () => call.resume());
    let endsWithProcess = false;
    call.on("lastWord", () => {
      endsWithProcess = true;
    });
    const onEnd = (): void => {
      progress.end();
      void finish(sink, endsWithProcess ? told : undefined).then(resolve);
    };
    call.on("end", onEnd);
    call.on("error", () => {
      endsWithProcess = true; // with the channel; what came until then is kept
      onEnd();
    });
    sink.on("error", () => {}); // a reader that went away: `close` follows
    const onClose = (): void => {
      progress.end();
      call.cancel();
      resolve();
    };
    sink.on("close", onClose);
    if (sink.destroyed) onClose(); // nobody read from the beginning
  });
}

/** Ends what was written to, after `told` where that is given. Resolves when every byte has left. */
function finish(sink: Writable, told: Promise<void> | undefined): Promise<void> {
  return new Promise((resolve) => {
    if (told === undefined) {
      sink.end(resolve);
      return;
    }
    sink.write("", () => resolve()); // after all that was written before
    void told.then(() => sink.end());
  });
}
