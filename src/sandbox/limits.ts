/**
 * The limits of a sandbox's containers, and what follows from their sum: the size of the virtual machine, and the host's cgroup of the sandbox. Each container's
 * own act in the guest. One change at a time.
 */
import type { AgentClient } from "../agent/agent-client.ts";
import { explain, HuskError } from "../errors.ts";
import type { CgroupLimits } from "../host/cgroups.ts";
import type { SandboxCgroups } from "../host/sandbox-cgroups.ts";
import { type Demand, demandOf, type SizeDefaults, updated } from "../oci/resources.ts";
import { demand as demandState } from "../oci/state.ts";
import type { Resources } from "../oci/types.ts";
import type { MachineSize } from "../vmm/machine.ts";
import type { QemuVm } from "../vmm/qemu/qemu-vm.ts";
import type { Container } from "./container.ts";
import { LiveSize } from "./live-size.ts";

/** What the limits are of, and act on. */
export interface LimitedSandbox {
  /** What the virtual machine was made with. */
  readonly base: MachineSize;
  readonly limits: MachineSize;
  readonly shares: boolean;
  readonly sizing: SizeDefaults;
  readonly cgroups: Pick<SandboxCgroups, "limit">;
  /** Both throw as long as the guest has not answered. */
  readonly vm: () => QemuVm;
  readonly agent: () => AgentClient;
  readonly warn: (message: string) => void;
}

/** A container whose limits change. */
export type LimitedContainer = Pick<Container, "status" | "update">;

/** The host's limits that follow the containers', the memory's aside. */
type HostLimits = Demand["host"];

export class SandboxLimits {
  readonly #sandbox: LimitedSandbox;
  readonly #live: LiveSize;
  readonly #containers = new Map<string, Resources>();
  /** What the host's cgroup was last given. */
  #host: HostLimits = {};
  #last: Promise<unknown> = Promise.resolve();

  constructor(sandbox: LimitedSandbox) {
    this.#sandbox = sandbox;
    const { base, limits, shares: shared, vm, agent, sizing } = sandbox;
    const { cgroups, warn } = sandbox;
    const allowMemory = (bytes: number): Promise<void> => cgroups.limit({ memoryBytes: bytes + sizing.hostOverheadBytes });
    this.#live = new LiveSize({ base, limits, shared, vm, agent, allowMemory, warn });
  }

  /** Whether the virtual machine has more in it than it was made with, in use or not. */
  get hasGrown(): boolean {
    return this.#live.hasGrown;
  }

  /** Counts the container that the virtual machine was made for, and the host's cgroup limited for. */
  begin(id: string, resources: Resources): void {
    this.#containers.set(id, resources);
    this.#host = this.#demand(this.#containers).host;
  }

  /** Counts a further container, for which the virtual machine grows where it is too small. Throws as `change` does. */
  admit(id: string, resources: Resources): Promise<void> {
    return this.#inTurn(() => this.#settle(id, resources, { vcpus: true, memory: true }, async () => {}));
  }

  /**
   * Changes the limits of a container that lives; `changes` names those, and is judged already (`judgeUpdate`). The virtual machine grows first where it is too
   * small, and gives back last what is no longer asked for. Throws, with nothing changed: `unsupported` where it cannot grow so far, `wrong-state`, `host` where
   * the host's kernel refuses its part, and the guest's and the hypervisor's errors.
   */
  change(id: string, container: LimitedContainer, changes: Resources): Promise<void> {
    return this.#inTurn(async () => {
      demandState("update", id, container.status);
      const { cpu, memory } = changes;
      const grows = { vcpus: Boolean(cpu?.quota || cpu?.period || cpu?.cpus), memory: Boolean(memory?.limit) };
      await this.#settle(id, updated(this.#containers.get(id) ?? {}, changes), grows, () => container.update(changes));
    });
  }

  /** A container has ended: what it alone needed is given back. Never throws; what could not be given back, the log says. */
  release(id: string): Promise<void> {
    return this.#inTurn(async () => {
      if (!this.#containers.delete(id)) return;
      const demand = this.#demand(this.#containers);
      await this.#warnOf(() => this.#limitHost(demand.host));
      await this.#warnOf(() => this.#giveBack(demand));
    });
  }

  /** `grows`: what the container's limits may have the machine grow in. An annotation may have made it smaller than they are. */
  async #settle(
    id: string,
    resources: Resources,
    grows: { readonly vcpus: boolean; readonly memory: boolean },
    apply: () => Promise<void>,
  ): Promise<void> {
    const [size, host] = [this.#live.size, this.#host];
    const demand = this.#demand(new Map(this.#containers).set(id, resources));
    const wanted = this.#live.fitting(demand);
    this.#refuse({ vcpus: grows.vcpus ? demand.vcpus : 0, memoryBytes: grows.memory ? demand.memoryBytes : 0 });
    await this.#live.grow({
      vcpus: grows.vcpus ? wanted.vcpus : size.vcpus,
      memoryBytes: grows.memory ? wanted.memoryBytes : size.memoryBytes,
    });
    try {
      await this.#limitHost(demand.host);
      await apply();
    } catch (error) {
      await this.#warnOf(() => this.#limitHost(host, demand.host));
      await this.#warnOf(() => this.#live.shrink(size));
      throw error;
    }
    this.#containers.set(id, resources);
    await this.#warnOf(() => this.#giveBack(demand));
  }

  /** What is given back is nobody's to wait for, or to fail of. */
  async #warnOf(work: () => Promise<void>): Promise<void> {
    try {
      await work();
    } catch (error) {
      this.#sandbox.warn(`what the containers' limits no longer ask for was not given back: ${explain(error)}`);
    }
  }

  /** Where a container has no limit, it may live on what there is: that stays. */
  async #giveBack(demand: Demand): Promise<void> {
    const [size, wanted] = [this.#live.size, this.#live.fitting(demand)];
    await this.#live.shrink({
      vcpus: demand.limited.vcpus ? wanted.vcpus : size.vcpus,
      memoryBytes: demand.limited.memory ? wanted.memoryBytes : size.memoryBytes,
    });
  }

  /** What is within the limits, a fitting size is too: they are whole steps. */
  #refuse({ vcpus, memoryBytes }: MachineSize): void {
    const { limits } = this.#sandbox;
    if (memoryBytes > limits.memoryBytes) {
      throw tooSmall("memory.limit", `${toMib(memoryBytes)} MiB of memory`, `${toMib(limits.memoryBytes)} MiB`, "vm.max_memory");
    }
    if (vcpus > limits.vcpus) throw tooSmall("cpu.quota", `${vcpus} processors`, String(limits.vcpus), "vm.max_vcpus");
  }

  /** Gives the host's cgroup what differs from `before`; a list that is gone, the parent's. Throws `host`. */
  async #limitHost(host: HostLimits, before = this.#host): Promise<void> {
    const all: CgroupLimits = {
      ...host,
      ...(before.cpus !== undefined && host.cpus === undefined ? { cpus: "" } : {}),
      ...(before.mems !== undefined && host.mems === undefined ? { mems: "" } : {}),
    };
    const differs = ([name, value]: [string, unknown]): boolean => !isSame(value, before[name as keyof HostLimits]);
    await this.#sandbox.cgroups.limit(Object.fromEntries(Object.entries(all).filter(differs)));
    this.#host = host;
  }

  #demand(containers: ReadonlyMap<string, Resources>): Demand {
    return demandOf([...containers.values()], this.#sandbox.sizing);
  }

  #inTurn<T>(work: () => Promise<T>): Promise<T> {
    const turn = this.#last.then(work);
    this.#last = turn.catch(() => {}); // its caller gets it
    return turn;
  }
}

function isSame(a: unknown, b: unknown): boolean {
  const text = (value: unknown): string =>
    JSON.stringify(value, (_, each: unknown) => (typeof each === "bigint" ? String(each) : each)) ?? "";
  return text(a) === text(b);
}

function tooSmall(field: string, needed: string, most: string, setting: string): HuskError {
  return new HuskError(
    "unsupported",
    `linux.resources.${field}: it needs a virtual machine with ${needed}, and this one can have ${most} at most`,
    {
      hint: `see ${setting}; a machine that is made for a container with the limit is as large`,
    },
  );
}

function toMib(bytes: number): number {
  return Math.ceil(bytes / 1024 ** 2);
}
