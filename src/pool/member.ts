/** A member of the pool with a sandbox that is ready for a container: launched, connected, rehearsed, and paused. */
import { mkdirSync } from "node:fs";
import { join } from "node:path";
import type { Config } from "../config/config.ts";
import { guestHostname, type VmPlan } from "../sandbox/plan-vm.ts";
import { Sandbox } from "../sandbox/sandbox.ts";
import { copiesZygote, type SandboxSpec } from "../sandbox/sandbox-plan.ts";
import { devicePorts } from "../template/shape.ts";
import { mostDisks } from "../vmm/qemu/command-line.ts";
import type { MemberOrder } from "./messages.ts";
import { rehearsalDisk, rehearse } from "./rehearsal.ts";
import { type JoinTaker, OtherMachine, type Own, planOrdered, Waiter } from "./waiter.ts";

/** How often the whole way is gone: the second time is as fast as the tenth. */
const rehearsals = 2;

/** How long a member may take to get ready, in milliseconds: it gives way to everybody else, and nobody waits for it. */
const patienceMs = 10 * 60_000;

export class Member extends Waiter {
  readonly takenFrom = "taken from the pool";
  readonly sandbox: Sandbox;

  /** Starts the sandbox, and resolves once it is paused. Throws as `planOrdered` and `Sandbox.connect`, and `guest` where the rehearsal fails. */
  static async start(order: MemberOrder, config: Config, warn: (message: string) => void): Promise<Member> {
    const plan = await planOrdered(order, config);
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
    return new Member(order, plan, sandbox);
  }

  private constructor(order: MemberOrder, plan: VmPlan, sandbox: Sandbox) {
    super(order, plan);
    this.sandbox = sandbox;
  }

  get died(): Promise<string> {
    return this.sandbox.died;
  }

  demandPlace(shares: boolean, disks: number): void {
    if (shares !== this.order.shares || disks > mostDisks(devicePorts)) throw new OtherMachine(this.order.key);
  }

  async begin(own: Own): Promise<void> {
    this.sandbox.awaken(own); // while everything else is made ready
    await this.sandbox.setRemains(own.remains);
  }

  launch(spec: SandboxSpec, _observer: unknown, join: JoinTaker): Sandbox {
    // Not before: who makes a cgroup, as has been done by now, waits while the kernel moves a process.
    return this.adopt(spec, join(this.sandbox.helperPid));
  }

  async discard(): Promise<void> {
    await this.sandbox.close(0);
    this.sandbox.nothingRemains();
    this.forget();
  }

  /** Makes the sandbox that of `spec`, once `work` is done as well. What it had as a member is given up. */
  adopt(spec: SandboxSpec, work: Promise<void>): Sandbox {
    this.sandbox.adopt(spec, work);
    this.forget();
    return this.sandbox;
  }
}
