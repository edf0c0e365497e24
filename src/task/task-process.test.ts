import { expect, test } from "vitest";
import { HuskError } from "../errors.ts";
import { deferred } from "../host/deferred.ts";
import type { ProcessOutcome } from "../sandbox/guest-process.ts";
import { StandIn } from "../sandbox/stand-in.ts";
import { TaskProcess } from "./task-process.ts";

/** A process whose end and last output come when the test says so. */
class ScriptedProcess extends TaskProcess {
  readonly pid = 1;
  readonly ended = deferred<ProcessOutcome>();
  readonly flushed = deferred<void>();
  readonly standInEnded = deferred<void>();
  readonly signals: number[] = [];
  /** What the guest answers to a signal. */
  refusal: HuskError | undefined;
  answer: Promise<void> = Promise.resolve();

  constructor() {
    super("", { stdin: "", stdout: "", stderr: "", terminal: false });
    const standIn = new StandIn({ signal: () => {}, resize: () => {}, lost: () => {} });
    void this.follow({ ended: this.ended.promise, flushed: this.flushed.promise }, standIn, this.standInEnded.promise);
  }

  override async resize(): Promise<void> {}
  override closeStdin(): void {}
  override async release(): Promise<void> {}
  protected override async run(): Promise<void> {}
  protected override async signal(signal: number): Promise<void> {
    if (this.refusal !== undefined) throw this.refusal;
    await this.answer;
    this.signals.push(signal);
  }
}

const finished = expect.objectContaining({ code: "not-found", message: "process already finished" });

test("a signal to a process whose last output is still leaving finds none", async () => {
  const process = new ScriptedProcess();
  await process.start();
  await process.kill(15, false);
  process.ended.resolve({ end: { code: 3 }, at: new Date(0) });
  await process.ended.promise;
  await expect(process.kill(9, true)).rejects.toEqual(finished);
  process.flushed.resolve();
  process.standInEnded.resolve();
  expect(await process.exited).toEqual({ status: 3, at: new Date(0) });
  await expect(process.kill(9, true)).rejects.toEqual(finished);
  expect(process.signals).toEqual([15]);
});

test("a signal to a process that has ended, as the guest alone knows, finds none", async () => {
  const process = new ScriptedProcess();
  process.refusal = new HuskError("wrong-state", 'process "" has ended');
  await expect(process.kill(9, false), "before it was started").rejects.toBe(process.refusal);
  await process.start();
  await expect(process.kill(9, false)).rejects.toEqual(finished);
  process.refusal = new HuskError("deadline", "the guest does not answer");
  await expect(process.kill(9, false)).rejects.toBe(process.refusal);
});

test("a signal that is on its way when the end is heard of finds none", async () => {
  const process = new ScriptedProcess();
  await process.start();
  const late = deferred<never>();
  process.answer = late.promise;
  const killed = process.kill(9, true);
  process.ended.resolve({ end: { code: 0 }, at: new Date(0) });
  process.flushed.resolve();
  process.standInEnded.resolve();
  await process.exited;
  late.reject(new HuskError("wrong-state", 'process "" has ended'));
  await expect(killed).rejects.toEqual(finished);
});

test("whoever hears of a process's end finds nobody at its PID any more", async () => {
  const process = new ScriptedProcess();
  await process.start();
  process.ended.resolve({ end: { signal: 9 }, at: new Date(0) });
  process.flushed.resolve();
  let told = false;
  void process.exited.then(() => {
    told = true;
  });
  await new Promise(setImmediate);
  expect([told, process.status]).toEqual([false, "running"]);
  process.standInEnded.resolve();
  expect(await process.exited).toMatchObject({ status: 137 });
});
