import { expect, test } from "vitest";
import type { EventPublisher } from "./events.ts";
import type { Pod } from "./pod.ts";
import { TaskService } from "./task-service.ts";

test("a shim that is told to end while its only Create goes on ends once that has failed", async () => {
  let ended = 0;
  const pod = { taskLedger: () => "/nonexistent/ledger", helper: "", log: { info: () => {}, warn: () => {} } } as unknown as Pod;
  const service = new TaskService({
    namespace: "ns",
    pod,
    events: {} as EventPublisher,
    isSandboxPid: () => false,
    onShutdown: () => {
      ended++;
    },
  });
  const { create, shutdown } = service.handlers();
  const call = { metadata: new Map() } as never;
  const created = Promise.resolve(create?.({ ...request, id: "c1", bundle: "/nonexistent/bundle" }, call));
  await shutdown?.({ id: "c1", now: false }, call);
  expect(ended, "the Create goes on").toBe(0);
  await expect(created).rejects.toThrow("bundle /nonexistent/bundle does not exist");
  expect(ended).toBe(1);
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
