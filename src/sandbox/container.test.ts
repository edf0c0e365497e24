import { expect, test } from "vitest";
import { Container, type ContainerSpec } from "./container.ts";
import { Occupancy } from "./occupancy.ts";
import type { Sandbox } from "./sandbox.ts";

/** A container whose guest is asked to make it, and says so when it is told to; and what it is asked to start. */
function beingMade() {
  const made = Promise.withResolvers<object>();
  const starts: (AbortSignal | undefined)[] = [];
  const call = (method: string, _request: object, _deadlineMs?: number, needless?: AbortSignal): Promise<object> => {
    if (method === "createContainer") return made.promise;
    starts.push(needless);
    return new Promise(() => {});
  };
  const sandbox = { agent: { call }, occupancy: new Occupancy() } as unknown as Sandbox;
  const spec = { id: "c", guestId: "c", specJson: "{}", storages: [], terminal: false } as unknown as ContainerSpec;
  const container = new Container(
    sandbox,
    spec,
    () => {},
    () => {},
  );
  return { container, made, starts };
}

test("a start that the guest was told of ahead is taken back where the container could not be made", async () => {
  const { container, made, starts } = beingMade();
  const created = container.create({}, { startAfter: Promise.resolve() });
  await Promise.resolve();
  expect(starts.map((needless) => needless?.aborted)).toEqual([false]);
  made.reject(new Error("no such program"));
  await expect(created).rejects.toThrow("no such program");
  expect(starts.map((needless) => needless?.aborted)).toEqual([true]);
});

test("the guest is not told to start what could not be made", async () => {
  const { container, made, starts } = beingMade();
  const mayStart = Promise.withResolvers<void>();
  const created = container.create({}, { startAfter: mayStart.promise });
  made.reject(new Error("no such program"));
  await expect(created).rejects.toThrow("no such program");
  mayStart.resolve();
  await mayStart.promise;
  await Promise.resolve();
  expect(starts).toEqual([]);
});
