/**
 * A spare: a supervisor that waits in a pool without a sandbox. It has loaded what it needs, and what it is taken for it does as one that front starts does. It is
 * ready again long before a sandbox is, and so is for those who come before that. Where its sandbox will be a zygote's copy that shows folders, the memory of that is
 * there, and full.
 */
import type { Config } from "../config/config.ts";
import { EarlyHelper } from "../sandbox/early-helper.ts";
import type { LaunchSandbox } from "../sandbox/hosted-sandbox.ts";
import type { VmPlan } from "../sandbox/plan-vm.ts";
import { Sandbox } from "../sandbox/sandbox.ts";
import type { SandboxSpec } from "../sandbox/sandbox-plan.ts";
import type { MemberOrder } from "./messages.ts";
import { type JoinTaker, type Own, planOrdered, Waiter } from "./waiter.ts";

export class Spare extends Waiter {
  readonly takenFrom = "taken by a supervisor that stood by";
  readonly died: Promise<string>;
  readonly #helper: EarlyHelper;
  readonly #filled: string | undefined;

  /** Throws as `planOrdered`, and `host` where the sandbox's helper cannot be started, or not fill memory. */
  static async start(order: MemberOrder, config: Config): Promise<Spare> {
    const plan = await planOrdered(order, config);
    const helper = new EarlyHelper({ programs: plan.vm.programs, remains: [] });
    const { zygote, memoryBytes } = plan.vm;
    const isToBeFilled = order.shares && zygote !== undefined; // its copies without folders have its own memory
    if (isToBeFilled) await helper.fill(zygote, memoryBytes);
    // What a sandbox loads once there is one.
    await import("../agent/agent-client.ts");
    return new Spare(order, plan, helper, isToBeFilled ? zygote.sum : undefined);
  }

  private constructor(order: MemberOrder, plan: VmPlan, helper: EarlyHelper, filled: string | undefined) {
    super(order, plan);
    this.#helper = helper;
    this.#filled = filled;
    this.died = helper.died;
  }

  demandPlace(): void {} // there is none yet

  begin({ remains }: Own): Promise<void> {
    return this.#helper.setRemains(remains);
  }

  launch(spec: SandboxSpec, observer: Parameters<LaunchSandbox>[1], join: JoinTaker): Sandbox {
    const helper = this.#helper.take();
    const filled = this.#filled === undefined ? {} : { filled: this.#filled };
    const sandbox = Sandbox.launch({ ...spec, ...filled }, observer, helper);
    sandbox.meanwhile(join(helper.pid));
    this.forget();
    return sandbox;
  }

  async discard(): Promise<void> {
    await this.#helper[Symbol.asyncDispose]();
    this.forget();
  }
}
