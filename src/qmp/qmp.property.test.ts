/** Whatever the peer sends, and however it is cut up, every promise settles and nothing is thrown where nobody catches it. */
import * as fc from "fast-check";
import { expect, test } from "vitest";
import { HuskError } from "../errors.ts";
import { QmpClient } from "./qmp.ts";
import { type Received, ScriptedPeer } from "./scripted-peer.ts";

/** Messages that QMP could hold, nonsense in the same form, and plain garbage. */
const line = fc.oneof(
  fc.record({ return: fc.jsonValue(), id: fc.integer({ min: -1, max: 6 }) }).map((message) => JSON.stringify(message)),
  fc
    .record({ event: fc.constantFrom("STOP", "SHUTDOWN", "x"), data: fc.jsonValue(), timestamp: fc.jsonValue() })
    .map((message) => JSON.stringify(message)),
  fc.record({ error: fc.jsonValue(), id: fc.integer({ min: 0, max: 6 }) }).map((message) => JSON.stringify(message)),
  fc.json(),
  fc.string(),
  fc.constant("[".repeat(20_000)),
);

test("a hostile peer can only end the connection", async () => {
  await fc.assert(
    fc.asyncProperty(fc.array(line, { maxLength: 5 }), fc.array(fc.integer({ min: 1, max: 200 })), async (lines, sizes) => {
      const peer = new ScriptedPeer();
      const [qmp] = await Promise.all([QmpClient.open(peer.stream), peer.negotiate()]);
      const pending = [qmp.execute("query-status"), qmp.execute("cont"), qmp.waitFor("STOP"), qmp.executeRaw("x")];
      const settled = Promise.allSettled(pending);
      const bytes = Buffer.from(lines.map((each) => `${each}\n`).join(""));
      let sent = 0;
      for (const size of [...sizes, bytes.length]) {
        peer.sendText(bytes.subarray(sent, sent + size));
        sent += size;
      }
      peer.end();
      const reason = await qmp.closed;
      for (const result of await settled) {
        if (result.status === "rejected") expect(result.reason).toBeInstanceOf(HuskError);
      }
      expect(["QEMU closed the QMP connection", expect.stringMatching(/^QEMU broke the QMP protocol: /)]).toContainEqual(reason.message);
      await qmp.close();
    }),
    { numRuns: 200 },
  );
});

test("answers find their commands in whatever order and pieces they come", async () => {
  const shuffled = fc.integer({ min: 1, max: 20 }).chain((count) => fc.shuffledSubarray([...Array(count).keys()], { minLength: count }));
  await fc.assert(
    fc.asyncProperty(shuffled, fc.integer({ min: 1, max: 40 }), async (order, pieceBytes) => {
      const peer = new ScriptedPeer();
      const [qmp] = await Promise.all([QmpClient.open(peer.stream), peer.negotiate()]);
      const answers = Promise.all(order.map((_, index) => qmp.executeRaw("echo", { index })));
      const commands: Received[] = [];
      for (const _ of order) commands.push(await peer.receive());
      const bytes = Buffer.from(
        order.map((index) => `${JSON.stringify({ return: commands[index]?.arguments, id: commands[index]?.id })}\n`).join(""),
      );
      for (let start = 0; start < bytes.length; start += pieceBytes) peer.sendText(bytes.subarray(start, start + pieceBytes));
      expect(await answers).toEqual(order.map((_, index) => ({ index })));
      await qmp.close();
    }),
    { numRuns: 50 },
  );
});
