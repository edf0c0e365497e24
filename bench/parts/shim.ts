/** containerd's shim: what its server takes of memory, idle and after much work, and how fast a container's output gets through it. */
import { constants, openSync } from "node:fs";
import { Socket } from "node:net";
import { join } from "node:path";
import { shimName } from "../../src/cli/host-memory.ts";
import { TaskDefinition } from "../../src/gen/containerd/task/v2/task.ts";
import { listProcesses, readProcessMemory } from "../../src/host/process-memory.ts";
import { TtrpcClient } from "../../src/ttrpc/client.ts";
import type { BenchHost } from "../bench-host.ts";
import { Engines } from "../engine.ts";
import type { Collected, FigureKind, Part, Settings } from "../figure.ts";
import { duration } from "../program.ts";

/** What they share counts in each by its share. */
const sandboxes = 10;
const callCount = 10_000;
const inFlight = 16;
const timeoutMs = 600_000;

export async function shim(host: BenchHost, { mebibytes }: Settings): Promise<Part> {
  const engines = await Engines.open(host);
  try {
    await engines.containerd();
  } catch (error) {
    await engines.close();
    throw error;
  }
  const collect = async (): Promise<Collected[]> => {
    const ids = Array.from({ length: sandboxes }, () => host.nextId());
    const id = ids[0] ?? "";
    const words = ["run", "--detach", "--runtime", "io.containerd.husk.v2", engines.image];
    for (const each of ids) await engines.ctr(...words, each, "sleep", "1000000");
    try {
      await using client = await TtrpcClient.connect(engines.shimSocket(id), { timeoutMs });
      const idle = memoryOf(id);
      await manyCalls(client, id);
      const afterCalls = memoryOf(id);
      const rate = await output(client, host, id, mebibytes * 2 ** 20);
      return [
        one(mebibytesOf(`the shim's memory, idle, one of ${sandboxes}`, 25), idle),
        one(mebibytesOf(`the same after ${callCount} calls`, 35), afterCalls),
        one(mebibytesOf(`the same after ${callCount} calls and ${mebibytes} MiB of output`, 35), memoryOf(id)),
        one({ name: "standard output through a FIFO", unit: "MB/s", better: "more", goals: [{ bound: 150 }] }, rate),
      ];
    } finally {
      for (const each of ids) {
        await engines.ctr("task", "rm", "--force", each);
        await engines.ctr("container", "rm", each);
      }
    }
  };
  return { figures: [], collect, close: () => engines.close() };
}

function mebibytesOf(name: string, bound: number): FigureKind {
  return { name, unit: "MiB", better: "less", goals: [{ bound }] };
}

function one(kind: FigureKind, sample: number): Collected {
  return { kind, samples: new Map([["husk", [sample]]]) };
}

/** The PSS of the server of a task's shim, in MiB. */
function memoryOf(id: string): number {
  const server = listProcesses().find(({ words }) => shimName(words) === `default/${id}`);
  const memory = server === undefined ? undefined : readProcessMemory(server.pid);
  if (memory === undefined) throw new Error(`there is no shim for ${id}`);
  return memory.pss / 2 ** 20;
}

async function manyCalls(client: TtrpcClient, id: string): Promise<void> {
  let left = callCount;
  const worker = async (): Promise<void> => {
    while (left > 0) {
      left -= 1;
      await client.call(TaskDefinition, "state", { id, execId: "" }, { timeoutMs });
    }
  };
  await Promise.all(Array.from({ length: inFlight }, worker));
}

/** Runs a process that writes so much into a FIFO, and answers how fast it came, in MB/s. */
async function output(client: TtrpcClient, host: BenchHost, id: string, bytes: number): Promise<number> {
  const fifo = join(host.folder, host.nextId("fifo"));
  await duration("mkfifo", [fifo]);
  const execId = "bulk";
  const process = {
    args: ["dd", "if=/dev/zero", "bs=256k", `count=${bytes / 2 ** 18}`],
    cwd: "/",
    env: ["PATH=/bin"],
    user: { uid: 0, gid: 0 },
  };
  const spec = { typeUrl: "types.containerd.io/opencontainers/runtime-spec/1/Process", value: Buffer.from(JSON.stringify(process)) };
  const reader = new Socket({ fd: openSync(fifo, constants.O_RDONLY | constants.O_NONBLOCK), readable: true, writable: false });
  try {
    await client.call(TaskDefinition, "exec", { id, execId, stdin: "", stdout: fifo, stderr: "", terminal: false, spec }, { timeoutMs });
    const read = readAll(reader, bytes);
    await client.call(TaskDefinition, "start", { id, execId }, { timeoutMs });
    const rate = await read;
    await client.call(TaskDefinition, "wait", { id, execId }, { timeoutMs });
    await client.call(TaskDefinition, "delete", { id, execId }, { timeoutMs });
    return rate;
  } finally {
    reader.destroy();
  }
}

/** From the first byte to the last, in MB/s. */
function readAll(reader: Socket, bytes: number): Promise<number> {
  return new Promise((resolve, reject) => {
    let read = 0;
    let began = 0;
    reader.on("data", (chunk: Buffer) => {
      if (read === 0) began = performance.now();
      read += chunk.length;
      if (read >= bytes) resolve(bytes / 1e3 / (performance.now() - began));
    });
    reader.on("end", () => reject(new Error(`the output ended after ${read} of ${bytes} bytes`)));
    reader.on("error", reject);
  });
}
