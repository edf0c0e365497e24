/**
 * Connections to the loopback addresses of the host's network namespace, carried to the guest's: engines dial localhost there to forward a port of a pod's.
 * The helper in the namespace takes them, and dials a socket here for each.
 */
import { chmodSync } from "node:fs";
import { createServer, type Server, type Socket } from "node:net";
import type { AgentClient } from "../agent/agent-client.ts";
import { HuskError } from "../errors.ts";

/** The helper's line is `{"port":65535,"family":4}`. */
const longestLine = 128;
/** What tells the helper that a program of the guest has accepted. */
const accepted = "+";

export interface PortForward {
  readonly close: () => void;
}

/** Listens at `path`, and carries each connection to the port it names. Throws `host`. */
export async function forwardPorts(agent: AgentClient, path: string): Promise<PortForward> {
  const open = new Set<Socket>();
  const server: Server = createServer({ allowHalfOpen: true }, (socket) => {
    open.add(socket);
    socket.on("close", () => open.delete(socket));
    socket.on("error", () => {}); // `close` follows
    carry(agent, socket);
  });
  await new Promise<void>((resolve, reject) => {
    server.once("error", (cause) => reject(new HuskError("host", `cannot listen at ${path}`, { cause })));
    server.listen(path, resolve);
  });
  chmodSync(path, 0o600);
  const close = (): void => {
    server.close();
    for (const socket of open) socket.destroy();
  };
  return { close };
}

/** The first line names the port; after our word, bytes go both ways, each direction as fast as it is read at its end. */
function carry(agent: AgentClient, socket: Socket): void {
  let line = "";
  const onData = (chunk: Buffer): void => {
    line += chunk.toString("latin1");
    if (!line.endsWith("\n") && line.length < longestLine) return;
    socket.off("data", onData);
    socket.pause();
    const { port, family } = JSON.parse(line) as { port: number; family: number };
    join(agent, socket, port, family === 6);
  };
  socket.on("data", onData);
}

function join(agent: AgentClient, socket: Socket, port: number, ipv6: boolean): void {
  const call = agent.connectLoopback();
  // Whether the guest will send nothing more.
  let over = false;
  call.once("metadata", () => {
    socket.write(accepted);
    socket.on("data", (data: Buffer) => {
      if (!call.write({ port: 0, ipv6: false, data })) socket.pause();
    });
    socket.on("end", () => call.end());
    socket.resume();
  });
  call.on("drain", () => socket.resume());
  call.on("data", ({ data, end }) => {
    if (!end) {
      if (!socket.write(data)) call.pause();
      return;
    }
    over = true;
    socket.end();
  });
  socket.on("drain", () => call.resume());
  call.on("end", () => socket.end());
  call.on("error", () => {
    over = true;
    socket.destroy(); // the caller sees a connection that is reset
  });
  socket.on("close", () => {
    // What was read to its end is still on its way to the guest.
    if (!over || !socket.readableEnded) call.cancel();
  });
  call.write({ port, ipv6, data: Buffer.alloc(0) });
}
