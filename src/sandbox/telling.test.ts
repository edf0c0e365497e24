import { expect, test } from "vitest";
import { HuskError } from "../errors.ts";
import type { Operation } from "../telemetry/telemetry.ts";
import { Teller } from "./telling.ts";
import { Trace } from "./trace.ts";

function teller() {
  const told: Operation[] = [];
  const trace = new Trace();
  const options = {
    trace,
    container: "c",
    parent: { traceparent: "p" },
    warn: () => {},
    send: (operation: Operation) => told.push(operation),
  };
  return { trace, told, teller: new Teller({ ...options, attributes: { "husk.x": 1 } }) };
}

test("what is told has the marks that were reached in it, and says of whom it is", async () => {
  const { trace, told, teller: one } = teller();
  trace.mark("before");
  await new Promise((resolve) => setTimeout(resolve, 2));
  await one.around("husk start", async () => trace.mark("within"));
  expect(told).toEqual([
    {
      name: "husk start",
      startMs: expect.any(Number),
      marks: [{ name: "within", atMs: expect.any(Number) }],
      attributes: { "container.id": "c", "container.runtime.name": "husk", "husk.x": 1 },
      parent: { traceparent: "p" },
    },
  ]);
});

test("a failure is told with its sort and its words, and passed on; each operation is told once", async () => {
  const { trace, told, teller: one } = teller();
  const failing = () => Promise.reject(new HuskError("vmm", "QEMU ended"));
  await expect(one.around("husk run", failing)).rejects.toThrow("QEMU ended");
  one.tell("husk run", trace.startMs);
  expect(told.map(({ name, failure }) => [name, failure])).toEqual([["husk run", { type: "vmm", message: "QEMU ended" }]]);
});
