import { mkdtempSync, rmSync } from "node:fs";
import { createServer } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, expect, test } from "vitest";
import { TaskStart } from "../gen/containerd/events/task.ts";
import { EventsDefinition } from "../gen/containerd/events/v1/forward.ts";
import { packAny } from "../ttrpc/any.ts";
import { TtrpcServer } from "../ttrpc/server.ts";
import { EventPublisher } from "./events.ts";

let folder: string;
let address: string;
const log = { info: () => {}, warn: () => {} };
const started = (pid: number) => packAny(TaskStart, { containerId: "c", pid });

beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), "husk-events-"));
  address = join(folder, "sock");
});
afterEach(() => rmSync(folder, { recursive: true }));

/** A containerd that notes the PIDs of the start events it gets, and calls `got` for each. */
async function containerd(got: (pid: number, topic: string) => void): Promise<TtrpcServer> {
  const server = new TtrpcServer();
  server.register(EventsDefinition, {
    forward: ({ envelope }, { metadata }) => {
      expect(envelope?.namespace).toBe("ns");
      expect(metadata.get("containerd-namespace-ttrpc")).toEqual(["ns"]);
      got(TaskStart.decode(envelope?.event?.value ?? Buffer.alloc(0)).pid, envelope?.topic ?? "");
    },
  });
  const listener = createServer();
  server.serve(listener);
  await new Promise<void>((resolve) => listener.listen(address, resolve));
  return server;
}

test("events arrive in their order, under their topic", async () => {
  const seen: string[] = [];
  await using _ = await containerd((pid, topic) => seen.push(`${topic} ${pid}`));
  const events = new EventPublisher(address, "ns", log);
  for (const pid of [1, 2, 3]) events.publish("/tasks/start", started(pid));
  await events.close();
  expect(seen).toEqual(["/tasks/start 1", "/tasks/start 2", "/tasks/start 3"]);
});

test("what happens while containerd is away is told when it is back, and nothing twice", async () => {
  const seen: number[] = [];
  const { promise: all, resolve } = Promise.withResolvers<void>();
  const note = (pid: number): void => {
    seen.push(pid);
    if (pid === 4) resolve();
  };
  const events = new EventPublisher(address, "ns", log);
  const first = await containerd(note);
  events.publish("/tasks/start", started(1));
  await expect.poll(() => seen).toEqual([1]);
  await first.close(0);
  for (const pid of [2, 3, 4]) events.publish("/tasks/start", started(pid));
  await using _ = await containerd(note);
  await all;
  expect(seen).toEqual([1, 2, 3, 4]);
  await events.close();
});

test("a containerd that is gone for good holds up no end", async () => {
  const warnings: string[] = [];
  const events = new EventPublisher(address, "ns", { ...log, warn: (message) => warnings.push(message) });
  events.publish("/tasks/start", started(1));
  await events.close();
  expect(warnings.join()).toContain("1 event(s) could not be told to containerd");
});
