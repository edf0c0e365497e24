import { expect, test } from "vitest";
import type { EventPublisher } from "./events.ts";
import type { Pod } from "./pod.ts";
import { TaskService } from "./task-service.ts";

function serviceWith(onShutdown: () => Promise<void>): TaskService {
  const pod = { taskLedger: () => "/nonexistent/ledger", helper: "", log: { info: () => {}, warn: () => {} } } as unknown as Pod;
  return new TaskService({
    namespace: "ns",
    pod,
    events: {} as EventPublisher,
    isSandboxPid: () => false,
    onStarted: () => {},
    onShutdown,
  });
}

const call = { metadata: new Map() } as never;

test("a shim that is told to end while its only Create goes on ends once that has failed", async () => {
  let ended = 0;
  const { create, shutdown } = serviceWith(async () => {
    ended++;
  }).handlers();
  const created = Promise.resolve(create?.({ ...request, id: "c1", bundle: "/nonexistent/bundle" }, call));
  await shutdown?.({ id: "c1", now: false }, call);
  expect(ended, "the Create goes on").toBe(0);
  await expect(created).rejects.toThrow("bundle /nonexistent/bundle does not exist");
  expect(ended).toBe(1);
});

test("Shutdown is answered once the shim has given everything back: containerd's delete then finds nothing to do", async () => {
  const gate = Promise.withResolvers<void>();
  const said: string[] = [];
  const { shutdown } = serviceWith(() => gate.promise.then(() => void said.push("given back"))).handlers();
  const answered = Promise.resolve(shutdown?.({ id: "c1", now: false }, call)).then(() => said.push("answered"));
  gate.resolve();
  await answered;
  expect(said).toEqual(["given back", "answered"]);
});

const request = {
  rootfs: [],
  terminal: false,
  stdin: "",
  stdout: "",
  stderr: "",
  checkpoint: "",
  parentCheckpoint: "",
  options: undefined,
};
