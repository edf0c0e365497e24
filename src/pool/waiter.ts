/**
 * What waits in a pool for somebody who takes it, in a process that will be its taker's supervisor: with a sandbox (Member), or with everything but that (Spare).
 *
 *     start ── made ready ── waits ──┬── asked, declines ──┐
 *                              ▲     └── asked, is taken   │
 *                              └──────────────────────────┘
 */
import { rmSync } from "node:fs";
import { createServer, type Socket } from "node:net";
import { join } from "node:path";
import type { Config } from "../config/config.ts";
import { HuskError } from "../errors.ts";
import { defaultSpec } from "../oci/default-spec.ts";
import type { Spec } from "../oci/types.ts";
import type { LaunchSandbox } from "../sandbox/hosted-sandbox.ts";
import { describeVm, machineKey, planVm, templateStore, type VmPlan } from "../sandbox/plan-vm.ts";
import { shortPath } from "../sandbox/run-folder.ts";
import type { Sandbox } from "../sandbox/sandbox.ts";
import type { SandboxSpec } from "../sandbox/sandbox-plan.ts";
import type { MemberOrder } from "./messages.ts";
import { memberSocket } from "./pool-folder.ts";

/** Front sends its request with the dial. One that is silent, or goes on for ever, is none. */
const longestRequest = 1024 * 1024;

/** A bundle needs another sandbox than this one. */
export class OtherMachine extends Error {
  /** What is the name of the machines that it could have. */
  readonly key: string;

  constructor(key: string) {
    super(`the bundle needs a sandbox on a machine of the kind ${key}`);
    this.key = key;
  }
}

/** Somebody who asks: his connection, and the first line that came on it. */
export interface Asked {
  readonly front: Socket;
  readonly line: string;
}

/** Puts a taker's processes where its child's would be: this one, and the sandbox's helper. */
export type JoinTaker = (helperPid: number) => Promise<void>;

/** What is known of the taker's sandbox before it is launched. */
export type Own = Pick<SandboxSpec, "id" | "hostname" | "disks" | "mounts" | "remains">;

export abstract class Waiter {
  /** Says in a trace whose taker somebody was. */
  abstract readonly takenFrom: string;
  /** Settles with the reason, in words for a user, when it can no longer be of use; never rejects. */
  abstract readonly died: Promise<string>;
  protected readonly order: MemberOrder;
  readonly #plan: VmPlan;

  protected constructor(order: MemberOrder, plan: VmPlan) {
    this.order = order;
    this.#plan = plan;
  }

  /** Throws OtherMachine where it does not do for a container that needs so many disks, and shows folders of the host or none. */
  abstract demandPlace(shares: boolean, disks: number): void;

  /** Begins to be the taker's, which is sure to come to `launch` or `discard`: from now on what remains of it is seen to. */
  abstract begin(own: Own): Promise<void>;

  /** Gives the sandbox, on its way at least; nothing of a container's runs in it before `join` is done, which is called here. */
  abstract launch(spec: SandboxSpec, observer: Parameters<LaunchSandbox>[1], join: JoinTaker): Sandbox;

  /** Ends what there is, where there was no `launch`. */
  abstract discard(): Promise<void>;

  /** The plan of its own machine, for a bundle that could have it. Throws OtherMachine. */
  async planMachine(spec: Spec, config: Config, engineNamespace?: string): Promise<VmPlan> {
    const request = await describeVm(spec, config, engineNamespace);
    const key = machineKey(request, config);
    if (key !== this.order.key) throw new OtherMachine(key);
    if (this.#plan.vm.template !== null) templateStore(config).touch(this.#plan.vm.template);
    const deadlines = { bootMs: config.deadlines.bootMs, callMs: config.deadlines.callMs };
    return { ...this.#plan, cgroupLimits: request.size.host, madeTemplate: false, notes: [], vm: { ...this.#plan.vm, deadlines } };
  }

  /** Waits until front asks. Whoever dials from then on finds nobody, and asks another. */
  asked(): Promise<Asked> {
    const path = memberSocket(this.order.folder, this.order.name);
    const short = shortPath(path);
    return new Promise((resolve, reject) => {
      const waiting = new Set<Socket>();
      const server = createServer({ allowHalfOpen: true }, (socket) => {
        waiting.add(socket);
        socket.once("close", () => waiting.delete(socket));
        firstLine(socket, (line) => {
          server.close();
          short.release();
          waiting.delete(socket);
          for (const other of waiting) other.destroy();
          resolve({ front: socket, line });
        });
      });
      server.once("error", (cause) => reject(new HuskError("host", `cannot listen on ${path}`, { cause })));
      server.listen({ path: short.path });
    });
  }

  /** Removes what it had of the pool's folder. */
  protected forget(): void {
    rmSync(join(this.order.folder, this.order.name), { recursive: true, force: true });
  }
}

/** The plan of the machine that was ordered. Throws as `planVm`, and `internal` where the configuration makes another one. */
export async function planOrdered(order: MemberOrder, config: Config): Promise<VmPlan> {
  const key = machineKey(await describeVm(defaultSpec, config, order.engineNamespace), config);
  if (key !== order.key) throw new HuskError("internal", `this configuration makes machines of the kind ${key}, and not ${order.key}`);
  return planVm(defaultSpec, config, order.engineNamespace);
}

/** Calls `onLine` with the first line, and leaves the socket as if nobody had listened yet. A socket that ends before is closed. */
function firstLine(socket: Socket, onLine: (line: string) => void): void {
  let begun = Buffer.alloc(0);
  const onError = (): void => {}; // `close` follows
  const onReadable = (): void => {
    for (let chunk = socket.read() as Buffer | null; chunk !== null; chunk = socket.read() as Buffer | null) {
      begun = Buffer.concat([begun, chunk]);
    }
    const end = begun.indexOf(0x0a);
    if (end === -1) {
      if (begun.length > longestRequest) socket.destroy();
      return;
    }
    socket.off("readable", onReadable).off("end", onEnd).off("error", onError);
    if (end + 1 < begun.length) socket.unshift(begun.subarray(end + 1));
    onLine(begun.subarray(0, end).toString("utf8"));
  };
  const onEnd = (): void => {
    socket.destroy();
  };
  socket.on("readable", onReadable).on("end", onEnd).on("error", onError);
}
