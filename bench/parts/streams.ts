/** Bulk data through standard streams, files and a network: how fast, beside runc. */
import type { ChildProcess } from "node:child_process";
import { once } from "node:events";
import { createServer } from "node:net";
import type { Writable } from "node:stream";
import type { BenchHost, Way } from "../bench-host.ts";
import type { Figure, Part, Settings } from "../figure.ts";
import { time } from "../program.ts";

const way: Way = { templates: true };

type Runtime = Way | "runc";

/** Standard output from the container's first byte to its last, and standard input. */
export async function stdio(host: BenchHost, { mebibytes }: Settings): Promise<Part> {
  const bytes = mebibytes * 2 ** 20;
  const writer = await host.bundle(["/bin/sh", "-c", `echo ready; exec dd if=/dev/zero bs=256k count=${mebibytes * 4} 2>/dev/null`]);
  const reader = await host.bundle(["/bin/sh", "-c", "echo ready; dd bs=256k of=/dev/null 2>/dev/null; echo done"]);
  return {
    figures: [
      {
        ...rate("standard output"),
        husk: () => outputRate(start(host, way, writer), bytes),
        beside: { runc: () => outputRate(start(host, "runc", writer), bytes) },
        goals: [{ bound: 150 }],
      },
      {
        ...rate("standard input"),
        husk: () => inputRate(start(host, way, reader), bytes),
        beside: { runc: () => inputRate(start(host, "runc", reader), bytes) },
        goals: [],
      },
    ],
  };
}

const rate = (name: string) => ({ name, unit: "MB/s", better: "more" }) as const;

function start(host: BenchHost, runtime: Runtime, bundle: string): ChildProcess {
  const args = ["run", "--bundle", bundle, host.nextId()];
  return runtime === "runc" ? host.startRunc(args) : host.startHusk(runtime, args);
}

async function outputRate(program: ChildProcess, bytes: number): Promise<number> {
  const ended = once(program, "close");
  let began = 0;
  let read = 0;
  program.stdin?.end();
  program.stderr?.resume();
  program.stdout?.on("data", (chunk: Buffer) => {
    if (read === 0) began = performance.now();
    read += chunk.length;
  });
  await ended;
  const milliseconds = performance.now() - began;
  if (read < bytes) throw new Error(`${program.spawnargs.join(" ")} wrote ${read} of ${bytes} bytes`);
  return bytes / 1e3 / milliseconds;
}

async function inputRate(program: ChildProcess, bytes: number): Promise<number> {
  if (program.stdin === null || program.stdout === null) throw new Error("the program has no streams");
  program.stdin.on("error", () => {}); // its status says more
  program.stderr?.resume();
  const closed = once(program, "close");
  const words = lines(program.stdout);
  await words.next(); // "ready"
  const began = performance.now();
  await pour(program.stdin, bytes);
  const { value } = await words.next();
  const milliseconds = performance.now() - began;
  if (value !== "done") throw new Error(`${program.spawnargs.join(" ")} did not read to the end`);
  await closed;
  return bytes / 1e3 / milliseconds;
}

async function* lines(stream: AsyncIterable<Buffer>): AsyncGenerator<string> {
  let text = "";
  for await (const chunk of stream) {
    text += chunk.toString();
    for (let at = text.indexOf("\n"); at !== -1; at = text.indexOf("\n")) {
      yield text.slice(0, at);
      text = text.slice(at + 1);
    }
  }
}

async function pour(stream: Writable, bytes: number): Promise<void> {
  const piece = Buffer.alloc(256 * 1024);
  for (let left = bytes; left > 0; left -= piece.length) {
    if (!stream.write(piece.subarray(0, Math.min(left, piece.length)))) await once(stream, "drain");
  }
  stream.end();
}

const smallFiles = 500;
const largeMebibytes = 64;

/** Work on a root file system that is a folder: what is timed lies between the container's two words. */
export async function files(host: BenchHost): Promise<Part> {
  const many = `for n in $(seq ${smallFiles}); do echo $n >/data/$n; done; cat /data/* >/dev/null`;
  const write = `dd if=/dev/zero of=/data/large bs=1M count=${largeMebibytes} 2>/dev/null; sync`;
  const read = "cat /data/large >/dev/null";
  const between = async (name: string, before: string, script: string): Promise<Figure> => {
    const text = `mkdir -p /data; ${before}; echo begin; ${script}; echo end; rm -r /data`;
    const bundle = await host.bundle(["/bin/sh", "-c", text]);
    const measure = async (runtime: Runtime): Promise<number> => {
      const args = ["run", "--bundle", bundle, host.nextId()];
      const options = { until: ["begin\n", "end\n"] };
      const { marks } = await (runtime === "runc" ? host.runc(args, options) : host.husk(runtime, args, options));
      return (marks[1] ?? Number.NaN) - (marks[0] ?? Number.NaN);
    };
    return { name, unit: "ms", better: "less", husk: () => measure(way), beside: { runc: () => measure("runc") }, goals: [] };
  };
  return {
    figures: [
      await between(`${smallFiles} small files, written and read`, ":", many),
      await between(`one file of ${largeMebibytes} MiB, written`, ":", write),
      await between(`one file of ${largeMebibytes} MiB, read`, write, read),
    ],
  };
}

/** Documentation's own addresses: nobody's network (RFC 5737). */
const [hostAddress, guestAddress, prefix] = ["192.0.2.1", "192.0.2.2", 30];

/** A TCP stream from the container over a veth pair to a program on the host. */
export async function network(host: BenchHost, { mebibytes }: Settings): Promise<Part> {
  const name = host.nextId("bench");
  const link = `bench${process.pid}`;
  const ip = (...args: readonly string[]) => time("ip", args);
  await ip("netns", "add", name);
  await ip("link", "add", link, "type", "veth", "peer", "name", "eth0", "netns", name);
  await ip("address", "add", `${hostAddress}/${prefix}`, "dev", link);
  await ip("link", "set", link, "up");
  await ip("-n", name, "address", "add", `${guestAddress}/${prefix}`, "dev", "eth0");
  await ip("-n", name, "link", "set", "eth0", "up");
  const sink = new Sink();
  const port = await sink.listen(hostAddress);
  const script = `dd if=/dev/zero bs=64k count=${mebibytes * 16} 2>/dev/null | nc ${hostAddress} ${port}`;
  const bundle = await host.bundle(["/bin/sh", "-c", script], "folder", { netns: `/run/netns/${name}` });
  const measure = async (runtime: Runtime): Promise<number> => {
    const received = sink.next();
    await host.run(runtime, bundle);
    return received;
  };
  return {
    figures: [{ ...rate("a TCP stream to the host"), husk: () => measure(way), beside: { runc: () => measure("runc") }, goals: [] }],
    close: async () => {
      sink.close();
      await ip("link", "delete", link);
      await ip("netns", "delete", name);
    },
  };
}

/** Takes connections, and says of each how fast its bytes came, in MB/s. */
class Sink {
  #told: (rate: number) => void = () => {};
  readonly #server = createServer((socket) => {
    const began = performance.now();
    let bytes = 0;
    socket.on("error", () => {}); // `close` follows
    socket.on("data", (chunk: Buffer) => {
      bytes += chunk.length;
    });
    socket.on("close", () => this.#told(bytes / 1e3 / (performance.now() - began)));
  });

  /** Answers the port. */
  async listen(address: string): Promise<number> {
    this.#server.listen(0, address);
    await once(this.#server, "listening");
    const bound = this.#server.address();
    if (bound === null || typeof bound === "string") throw new Error("the server has no port");
    return bound.port;
  }

  next(): Promise<number> {
    return new Promise((resolve) => {
      this.#told = resolve;
    });
  }

  close(): void {
    this.#server.close();
  }
}
