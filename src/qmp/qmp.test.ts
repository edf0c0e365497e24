import { getEventListeners } from "node:events";
import { afterEach, beforeEach, describe, expect, test, vi } from "vitest";
import { HuskError } from "../errors.ts";
import { QmpClient, QmpError } from "./qmp.ts";
import { GREETING, ScriptedPeer } from "./scripted-peer.ts";

async function connect(...behind: readonly object[]): Promise<{ peer: ScriptedPeer; qmp: QmpClient }> {
  const peer = new ScriptedPeer();
  const [qmp] = await Promise.all([QmpClient.open(peer.stream), peer.negotiate(...behind)]);
  return { peer, qmp };
}

const failure = (promise: Promise<unknown>): Promise<unknown> =>
  promise.then(
    () => "no error",
    (error: unknown) => error,
  );

/** Lets everything that was sent arrive. */
const settle = () => new Promise<void>((resolve) => void setImmediate(() => setImmediate(resolve)));

describe("open", () => {
  test("negotiates out-of-band execution where it is offered", async () => {
    const peer = new ScriptedPeer();
    const opening = QmpClient.open(peer.stream);
    expect(await peer.negotiate()).toEqual({ execute: "qmp_capabilities", arguments: { enable: ["oob"] }, id: 1 });
    const qmp = await opening;
    expect(qmp.greeting).toEqual(GREETING.QMP);
    void qmp.executeRaw("yank", { instances: [] }, { outOfBand: true }).catch(() => {});
    expect(await peer.receive()).toEqual({ "exec-oob": "yank", arguments: { instances: [] }, id: 2 });
    await qmp.close();
  });

  test("asks for nothing where nothing is offered", async () => {
    const peer = new ScriptedPeer();
    const opening = QmpClient.open(peer.stream);
    peer.send({ QMP: { ...GREETING.QMP, capabilities: [] } });
    const negotiation = await peer.receive();
    expect(negotiation).toEqual({ execute: "qmp_capabilities", arguments: {}, id: 1 });
    peer.send({ return: {}, id: 1 });
    const qmp = await opening;
    expect(await failure(qmp.executeRaw("yank", {}, { outOfBand: true }))).toMatchObject({
      message: "QEMU's monitor takes no out-of-band commands: yank",
    });
  });

  test("delivers the events that come in one chunk with the negotiation's answer", async () => {
    const peer = new ScriptedPeer();
    const opening = QmpClient.open(peer.stream);
    void peer.negotiate(peer.event("VSERPORT_CHANGE", { id: "agent", open: true }), peer.event("STOP"));
    const qmp = await opening;
    const seen: unknown[] = [];
    qmp.on("VSERPORT_CHANGE", (data, timestamp) => seen.push(data, timestamp));
    await qmp.waitFor("STOP");
    expect(seen).toEqual([
      { id: "agent", open: true },
      { seconds: 1, microseconds: 2 },
    ]);
  });

  test("fails, and destroys the stream, where the peer ends, answers no, or speaks first of other things", async () => {
    const ended = new ScriptedPeer();
    ended.end();
    expect(await failure(QmpClient.open(ended.stream))).toMatchObject({ code: "vmm", message: "QEMU closed the QMP connection" });
    expect(ended.stream.destroyed).toBe(true);

    const refusing = new ScriptedPeer();
    const refused = failure(QmpClient.open(refusing.stream));
    refusing.send(GREETING);
    await refusing.receive();
    refusing.send({ error: { class: "GenericError", desc: "never" }, id: 1 });
    expect(await refused).toMatchObject({ message: "QEMU refused qmp_capabilities: never" });

    const early = new ScriptedPeer();
    const spoke = failure(QmpClient.open(early.stream));
    early.send(early.event("STOP"));
    expect(await spoke).toMatchObject({ message: "QEMU broke the QMP protocol: expected its greeting first" });
  });

  test("ends by the deadline, which holds for the greeting and the negotiation, and by the signal", async () => {
    const silent = new ScriptedPeer();
    expect(await failure(QmpClient.open(silent.stream, { deadlineMs: 5 }))).toMatchObject({
      code: "deadline",
      message: "QEMU did not send its QMP greeting within 5 ms",
    });
    const half = new ScriptedPeer();
    half.send(GREETING);
    const error = await failure(QmpClient.open(half.stream, { deadlineMs: 30 }));
    expect(error).toMatchObject({ code: "deadline", message: expect.stringMatching(/^QEMU did not answer qmp_capabilities within/) });

    const reason = new Error("enough");
    expect(await failure(QmpClient.open(new ScriptedPeer().stream, { signal: AbortSignal.abort(reason) }))).toBe(reason);
  });
});

describe("execute", () => {
  let peer: ScriptedPeer;
  let qmp: QmpClient;
  beforeEach(async () => {
    ({ peer, qmp } = await connect());
  });
  afterEach(() => qmp.close());

  test("matches answers by their ids, in whatever order they come", async () => {
    const answers = Promise.all([qmp.execute("query-status"), qmp.execute("query-kvm"), qmp.execute("cont")]);
    const [status, kvm, cont] = [await peer.receive(), await peer.receive(), await peer.receive()];
    expect([status, kvm, cont]).toEqual([
      { execute: "query-status", id: 2 },
      { execute: "query-kvm", id: 3 },
      { execute: "cont", id: 4 },
    ]);
    peer.send({ return: {}, id: 4 }, { return: { enabled: true, present: true }, id: 3 });
    peer.send({ return: { running: true, status: "running", singlestep: false }, id: 2 });
    expect(await answers).toEqual([{ running: true, status: "running" }, { enabled: true, present: true }, undefined]);
  });

  test("takes a line that comes byte by byte", async () => {
    const answer = qmp.execute("human-monitor-command", { "command-line": "info" });
    const { id } = await peer.receive();
    for (const byte of Buffer.from(`${JSON.stringify({ return: "grüße 🐧", id })}\n`)) peer.sendText(Buffer.of(byte));
    expect(await answer).toBe("grüße 🐧");
  });

  test("rejects with QEMU's class and words, on one line, without control characters", async () => {
    const answer = failure(qmp.execute("device_add", { driver: "x" }));
    const { id } = await peer.receive();
    peer.send({ error: { class: "DeviceNotFound", desc: "no\n\u001b[31mdevice\u0007 x" }, id });
    const error = await answer;
    expect(error).toBeInstanceOf(QmpError);
    expect(error).toBeInstanceOf(HuskError);
    expect(error).toMatchObject({
      code: "vmm",
      class: "DeviceNotFound",
      desc: "no [31mdevice x",
      command: "device_add",
      message: "QEMU refused device_add: no [31mdevice x",
    });
  });

  test("rejects an answer of the wrong shape, and goes on", async () => {
    const answer = failure(qmp.execute("query-status"));
    peer.send({ return: { running: "yes", status: "running" }, id: (await peer.receive()).id });
    expect(await answer).toMatchObject({
      code: "vmm",
      message: 'QEMU answered query-status with nonsense: running: expected true or false, got "yes"',
    });
    const next = qmp.execute("stop");
    peer.send({ return: {}, id: (await peer.receive()).id });
    await next;
  });

  test("gives a command up at its deadline, and drops the late answer", async () => {
    expect(await failure(qmp.execute("query-status", {}, { deadlineMs: 5 }))).toMatchObject({
      code: "deadline",
      message: "QEMU did not answer query-status within 5 ms",
    });
    const { id } = await peer.receive();
    const next = qmp.execute("query-kvm");
    peer.send({ return: {}, id }, { return: { enabled: false, present: false }, id: (await peer.receive()).id });
    expect(await next).toEqual({ enabled: false, present: false });
  });

  test("gives a command up by its signal; an aborted one is never sent", async () => {
    const reason = new Error("enough");
    const controller = new AbortController();
    const answer = failure(qmp.execute("query-status", {}, { signal: controller.signal }));
    await peer.receive();
    controller.abort(reason);
    expect(await answer).toBe(reason);
    expect(await failure(qmp.execute("cont", {}, { signal: controller.signal }))).toBe(reason);
    const next = qmp.execute("stop");
    expect(await peer.receive()).toMatchObject({ execute: "stop" });
    peer.send({ return: {}, id: 3 });
    await next;
  });
});

describe("events", () => {
  test("reach their listeners until these are taken back; unknown ones reach onAny", async () => {
    const { peer, qmp } = await connect();
    const seen: unknown[] = [];
    const off = qmp.on("SHUTDOWN", (data) => seen.push(data));
    qmp.onAny((name, data) => seen.push([name, data]));
    peer.send(peer.event("SHUTDOWN", { guest: true, reason: "guest-shutdown" }), peer.event("NEW_IN_QEMU_99", { x: [1] }));
    await settle();
    off();
    peer.send(peer.event("SHUTDOWN", { guest: true, reason: "guest-shutdown" }));
    await settle();
    const shutdown = { guest: true, reason: "guest-shutdown" };
    expect(seen).toEqual([shutdown, ["SHUTDOWN", shutdown], ["NEW_IN_QEMU_99", { x: [1] }], ["SHUTDOWN", shutdown]]);
    await qmp.close();
  });

  test("waitFor takes the first that its predicate takes", async () => {
    const { peer, qmp } = await connect();
    const waiting = qmp.waitFor("DEVICE_DELETED", ({ device }) => device === "b");
    peer.send(peer.event("DEVICE_DELETED", { device: "a", path: "/a" }), peer.event("DEVICE_DELETED", { device: "b", path: "/b" }));
    expect(await waiting).toEqual({ device: "b", path: "/b" });
    await qmp.close();
  });

  test("waitFor ends by its deadline, its signal, and a predicate that throws", async () => {
    const { peer, qmp } = await connect();
    expect(await failure(qmp.waitFor("STOP", () => true, { deadlineMs: 5 }))).toMatchObject({
      code: "deadline",
      message: "QEMU did not report STOP within 5 ms",
    });
    const reason = new Error("enough");
    expect(await failure(qmp.waitFor("STOP", () => true, { signal: AbortSignal.abort(reason) }))).toBe(reason);
    const throwing = failure(
      qmp.waitFor("STOP", () => {
        throw reason;
      }),
    );
    peer.send(peer.event("STOP"));
    expect(await throwing).toBe(reason);
    await qmp.close();
  });

  test("executeUntil takes an event that comes before the answer, and one that comes after it", async () => {
    const { peer, qmp } = await connect();
    const before = qmp.executeUntil("device_del", { id: "a" }, "DEVICE_DELETED", ({ device }) => device === "a");
    peer.send(peer.event("DEVICE_DELETED", { device: "a", path: "/a" }), { return: {}, id: (await peer.receive()).id });
    expect(await before).toMatchObject({ path: "/a" });
    const after = qmp.executeUntil("device_del", { id: "b" }, "DEVICE_DELETED", ({ device }) => device === "b");
    peer.send({ return: {}, id: (await peer.receive()).id }, peer.event("DEVICE_DELETED", { device: "b", path: "/b" }));
    expect(await after).toMatchObject({ path: "/b" });
    await qmp.close();
  });

  test("executeUntil fails as soon as the command does", async () => {
    const { peer, qmp } = await connect();
    const answer = failure(qmp.executeUntil("device_del", { id: "a" }, "DEVICE_DELETED", () => true));
    peer.send({ error: { class: "DeviceNotFound", desc: "no a" }, id: (await peer.receive()).id });
    expect(await answer).toMatchObject({ message: "QEMU refused device_del: no a" });
    await qmp.close();
  });

  test("a listener that throws takes neither the event from the others nor the connection down", async () => {
    const { peer, qmp } = await connect();
    const uncaught = vi.fn();
    process.once("uncaughtException", uncaught);
    const rethrown = process.listeners("uncaughtException").filter((listener) => listener !== uncaught);
    for (const listener of rethrown) process.off("uncaughtException", listener);
    const defect = new Error("a defect");
    const second = vi.fn();
    qmp.on("STOP", () => {
      throw defect;
    });
    qmp.on("STOP", second);
    peer.send(peer.event("STOP"));
    await settle();
    for (const listener of rethrown) process.on("uncaughtException", listener);
    expect(second).toHaveBeenCalledOnce();
    expect(uncaught.mock.calls[0]?.[0]).toBe(defect);
    const answer = qmp.execute("cont");
    peer.send({ return: {}, id: (await peer.receive()).id });
    await answer;
    await qmp.close();
  });
});

test("what has ended leaves no timer and no listener behind, which would keep the process alive", async () => {
  vi.useFakeTimers({ toFake: ["setTimeout", "clearTimeout"] });
  try {
    const { peer, qmp } = await connect();
    const { signal } = new AbortController();
    const answered = qmp.execute("cont", {}, { signal });
    peer.send({ return: {}, id: (await peer.receive()).id });
    await answered;
    const refused = failure(qmp.executeUntil("device_del", { id: "a" }, "DEVICE_DELETED", () => true, { signal }));
    peer.send({ error: { class: "DeviceNotFound", desc: "no a" }, id: (await peer.receive()).id });
    await refused;
    expect(vi.getTimerCount()).toBe(0);
    expect(getEventListeners(signal, "abort")).toEqual([]);
    const pending = [failure(qmp.execute("stop", {}, { signal })), failure(qmp.waitFor("STOP", () => true, { signal }))];
    await qmp.close();
    await Promise.all(pending);
    expect(vi.getTimerCount()).toBe(0);
    expect(getEventListeners(signal, "abort")).toEqual([]);
  } finally {
    vi.useRealTimers();
  }
});

describe("the end of the connection", () => {
  const nonsense: [string, string, string | Buffer][] = [
    ["no JSON", `Unexpected token 'h', "hello" is not valid JSON`, "hello\n"],
    ["no QMP", "expected a greeting, a return, an error or an event", "{}\n"],
    ["no UTF-8", "The encoded data was not valid for encoding utf-8", Buffer.from([0x22, 0xff, 0x22, 0x0a])],
    ["a second greeting", "a second greeting", `${JSON.stringify(GREETING)}\n`],
    ["an answer to nothing", "an answer to a command that was not sent, 99", '{"return":{},"id":99}\n'],
    ["a complaint without an id", "it could not read a command: what?", '{"error":{"class":"GenericError","desc":"what?"}}\n'],
    [
      "an event of the wrong shape",
      "guest: expected true or false, got nothing",
      '{"event":"SHUTDOWN","data":{"reason":"x"},"timestamp":{"seconds":1,"microseconds":1}}\n',
    ],
    ["a line that is too long", "a line is longer than 1000 bytes", "x".repeat(1001)],
  ];
  test.each(nonsense)("%s ends it: %s", async (_, problem, text) => {
    const peer = new ScriptedPeer();
    const [qmp] = await Promise.all([QmpClient.open(peer.stream, { maxLineBytes: 1000 }), peer.negotiate()]);
    const pending = [failure(qmp.execute("cont")), failure(qmp.waitFor("STOP"))];
    await peer.receive();
    peer.sendText(text);
    const reason = await qmp.closed;
    expect(reason).toMatchObject({ code: "vmm", message: `QEMU broke the QMP protocol: ${problem}` });
    expect(await Promise.all(pending)).toEqual([reason, reason]);
    expect(peer.stream.destroyed).toBe(true);
    expect(await failure(qmp.execute("cont"))).toBe(reason);
    expect(await failure(qmp.waitFor("STOP"))).toBe(reason);
  });

  test("what came before the end still counts", async () => {
    const { peer, qmp } = await connect();
    const answer = qmp.execute("quit");
    const event = qmp.waitFor("SHUTDOWN");
    peer.send(peer.event("SHUTDOWN", { guest: false, reason: "host-qmp-quit" }), { return: {}, id: (await peer.receive()).id });
    peer.end();
    await answer;
    expect(await event).toEqual({ guest: false, reason: "host-qmp-quit" });
    expect((await qmp.closed).message).toBe("QEMU closed the QMP connection");
  });

  test("a reply that is cut off in the middle rejects its command", async () => {
    const { peer, qmp } = await connect();
    const answer = failure(qmp.execute("cont"));
    const { id } = await peer.receive();
    peer.sendText(`{"return":{},"id":${id}`);
    peer.end();
    expect(await answer).toMatchObject({ code: "vmm", message: "QEMU closed the QMP connection" });
  });

  test("a broken stream is told with its cause", async () => {
    const { peer, qmp } = await connect();
    const answer = failure(qmp.execute("cont"));
    const cause = new Error("ECONNRESET");
    peer.breakOff(cause);
    expect(await answer).toMatchObject({ message: "the QMP connection broke", cause });
  });

  test("closing rejects what is pending, once, and may be repeated", async () => {
    const { peer, qmp } = await connect();
    const answer = failure(qmp.execute("cont"));
    await peer.receive();
    {
      await using closing = qmp;
      expect(closing).toBe(qmp);
    }
    await qmp.close();
    expect(await answer).toMatchObject({ message: "the QMP connection was closed" });
    expect(await answer).toBe(await qmp.closed);
  });
});
