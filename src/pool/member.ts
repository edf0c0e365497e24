/**
 * A member of the pool: a sandbox that is ready for a container, in a process that will be its supervisor.
 *
 *     start ── VM launched ── agent answers ── rehearsed ── paused ── waits ──┬── asked, declines ──┐
 *                                                               ▲             └── asked, is taken   │
 *                                                               └───────────────────────────────────┘
 */
import { mkdirSync, rmSync } from "node:fs";
import { createServer, type Socket } from "node:net";
import { join } from "node:path";
import type { Config } from "../config/config.ts";
import { HuskError } from "../errors.ts";
import { defaultSpec } from "../oci/default-spec.ts";
import type { Spec } from "../oci/types.ts";
import { describeVm, guestHostname, machineKey, planVm, templateStore, type VmPlan } from "../sandbox/plan-vm.ts";
import { shortPath } from "../sandbox/run-folder.ts";
import { Sandbox } from "../sandbox/sandbox.ts";
import { copiesZygote, type SandboxSpec } from "../sandbox/sandbox-plan.ts";
import { devicePorts } from "../template/shape.ts";
import { mostDisks } from "../vmm/qemu/command-line.ts";
import type { MemberOrder } from "./messages.ts";
import { memberSocket } from "./pool-folder.ts";
import { rehearsalDisk, rehearse } from "./rehearsal.ts";

/** How often the whole way is gone: the second time is as fast as the tenth. */
const rehearsals = 2;

/** How long a member may take to get ready, in milliseconds: it gives way to everybody else, and nobody waits for it. */
const patienceMs = 10 * 60_000;

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

export class Member {
  readonly sandbox: Sandbox;
  readonly #order: MemberOrder;
  readonly #plan: VmPlan;
  readonly #key: string;

  /** Starts the sandbox, and resolves once it is paused. Throws as `planVm` and `Sandbox.connect`, and `guest` where the rehearsal fails. */
  static async start(order: MemberOrder, config: Config, warn: (message: string) => void): Promise<Member> {
    const key = machineKey(await describeVm(defaultSpec, config, order.engineNamespace), config);
    if (key !== order.key) throw new HuskError("internal", `this configuration makes machines of the kind ${key}, and not ${order.key}`);
    const plan = await planVm(defaultSpec, config, order.engineNamespace);
    const own = join(order.folder, order.name);
    mkdirSync(own, { mode: 0o700 });
    const spec: SandboxSpec = {
      ...plan.vm,
      id: order.name,
      hostname: guestHostname,
      netns: null,
      cgroups: order.cgroups,
      shares: order.shares,
      mounts: [],
      disks: [],
      agentSocket: join(own, "agent.sock"),
      remains: [],
      consoleLog: join(own, "console.log"),
      deadlines: { ...plan.vm.deadlines, bootMs: patienceMs },
    };
    const sandbox = Sandbox.launch(spec, { mark: () => {}, fellBack: warn });
    await sandbox.connect();
    const bundle = join(order.folder, "rehearsal");
    // A zygote's copies begin where its rehearsal ended: then it is this process that has not gone the way yet, and QEMU's that has to be given each page.
    const work = (): Promise<void> => rehearse(sandbox, bundle, config.allow, copiesZygote(sandbox.spec) ? 1 : rehearsals);
    await (order.shares ? work() : sandbox.withDisk(rehearsalDisk(bundle, "ext4"), work));
    await sandbox.vm.pause();
    return new Member(order, sandbox, plan, key);
  }

  private constructor(order: MemberOrder, sandbox: Sandbox, plan: VmPlan, key: string) {
    this.#order = order;
    this.sandbox = sandbox;
    this.#plan = plan;
    this.#key = key;
  }

  /** The plan of this very machine, for a bundle that could have it. Throws OtherMachine. */
  async planMachine(spec: Spec, config: Config, engineNamespace?: string): Promise<VmPlan> {
    const request = await describeVm(spec, config, engineNamespace);
    const key = machineKey(request, config);
    if (key !== this.#key) throw new OtherMachine(key);
    if (this.#plan.vm.template !== null) templateStore(config).touch(this.#plan.vm.template);
    const deadlines = { bootMs: config.deadlines.bootMs, callMs: config.deadlines.callMs };
    return { ...this.#plan, cgroupLimits: request.size.host, madeTemplate: false, notes: [], vm: { ...this.#plan.vm, deadlines } };
  }

  /** Throws OtherMachine where the sandbox is not made for containers that need so many disks, and show folders of the host or none. */
  demandPlace(shares: boolean, disks: number): void {
    if (shares !== this.#order.shares || disks > mostDisks(devicePorts)) throw new OtherMachine(this.#key);
  }

  /**
   * Waits until front asks. Resolves to its connection, and to the first line that came on it. Whoever dials from then on finds nobody, and asks another.
   */
  asked(): Promise<{ readonly front: Socket; readonly line: string }> {
    const path = memberSocket(this.#order.folder, this.#order.name);
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

  /** Ends the sandbox, and gives up what it had as a member. */
  async giveUp(): Promise<void> {
    await this.sandbox.close(0);
    this.#forget();
  }

  /** Makes the sandbox that of `spec`, once `work` is done as well. What it had as a member is given up. */
  adopt(spec: SandboxSpec, work: Promise<void>): Sandbox {
    this.sandbox.adopt(spec, work);
    this.#forget();
    return this.sandbox;
  }

  #forget(): void {
    rmSync(join(this.#order.folder, this.#order.name), { recursive: true, force: true });
  }
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
