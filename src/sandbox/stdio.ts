/**
 * The standard streams of one process, between its stand-in's sockets and the agent's streams. Each direction has its own flow control from
 * end to end: whoever is slow slows down the other end of that stream, and nothing else.
 */
import type { Socket } from "node:net";
import type { AgentClient } from "../agent/agent-client.ts";
import { OutputKind, type ReadOutputRequest } from "../gen/agent/v1/agent.ts";

/** The process a stream belongs to. */
export interface ProcessTarget {
  readonly containerId: string;
  /** "" is the container's init. */
  readonly processId: string;
}

/**
 * Carries what `socket` reads to the process's standard input; the socket's end is the end of file. Where the process closed its input, the
 * socket is destroyed, which tells the stand-in. Resolves when nothing more will be carried; never rejects, since a lost input is the
 * process's end or the channel's, and both are reported by others.
 */
export function pumpStdin(agent: AgentClient, target: ProcessTarget, socket: Socket): Promise<void> {
  return new Promise((resolve) => {
    const call = agent.writeStdin(() => {
      socket.destroy();
      resolve();
    });
    call.on("error", () => {}); // told to the callback above
    call.write({ ...target, data: Buffer.alloc(0) });
    socket.on("data", (data: Buffer) => {
      if (!call.write({ containerId: "", processId: "", data })) socket.pause();
    });
    call.on("drain", () => socket.resume());
    socket.on("end", () => call.end());
    socket.on("error", () => call.end());
    socket.on("close", () => call.end());
    if (socket.readableEnded || socket.destroyed) call.end(); // it ended before anybody listened
  });
}

/**
 * Carries one output of the process to `socket`, and ends it after the last byte. Where nobody reads the socket any more, the process's
 * writing end breaks as a pipe does (SIGPIPE). Resolves when every byte has left for the stand-in, or nobody wants them; never rejects.
 */
export function pumpOutput(agent: AgentClient, target: ProcessTarget, output: "stdout" | "stderr", socket: Socket): Promise<void> {
  const kind = output === "stdout" ? OutputKind.OUTPUT_KIND_STDOUT : OutputKind.OUTPUT_KIND_STDERR;
  const request: ReadOutputRequest = { ...target, output: kind };
  return new Promise((resolve) => {
    const call = agent.readOutput(request);
    call.on("data", ({ data }: { data: Buffer }) => {
      if (!socket.write(data)) call.pause();
    });
    socket.on("drain", () => call.resume());
    call.on("end", () => socket.end(resolve));
    call.on("error", () => socket.end(resolve)); // the channel's end; what came until then is kept
    socket.on("error", () => {}); // a reader that went away: `close` follows
    socket.on("close", () => {
      call.cancel();
      resolve();
    });
    socket.on("end", () => socket.destroy()); // the stand-in sends nothing here: its end means that nobody reads
    if (socket.readableEnded) socket.destroy();
    else socket.resume();
  });
}
