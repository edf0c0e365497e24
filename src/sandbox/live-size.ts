/**
 * The size of a sandbox's virtual machine while it runs. Memory is plugged in as one device (virtio-mem), of which the guest is to use more or less; it gives
 * back what it can free. Processors are plugged in one by one and stay: what is no longer wanted, the guest's agent takes offline, and QEMU's thread for it
 * sleeps. Unplugged they are not, since emulation has a place for each processor that ever was, and a QEMU 7.2 whose places are used up aborts.
 * https://www.qemu.org/docs/master/system/devices/virtio-mem.html
 */
import type { AgentClient } from "../agent/agent-client.ts";
import { explain } from "../errors.ts";
import type { MachineSize } from "../vmm/machine.ts";
import type { QemuVm } from "../vmm/qemu/qemu-vm.ts";

/** Linux takes memory in blocks of this size; the guest's agent waits for whole ones. */
export const memoryStepBytes = 128 * 1024 ** 2;

export interface LiveSizeOptions {
  /** What the machine was made with. */
  readonly base: MachineSize;
  /** Whole steps of memory beyond that. */
  readonly limits: MachineSize;
  /** Whether the guest's memory must be such as virtiofsd can map. */
  readonly shared: boolean;
  /** Both throw as long as the guest has not answered. */
  readonly vm: () => Pick<QemuVm, "plugProcessors" | "plugMemory" | "requestMemory" | "watchMemory">;
  readonly agent: () => Pick<AgentClient, "call">;
  /** Told how much memory the machine may come to, before it does, and when it has become less. May reject. */
  readonly allowMemory: (bytes: number) => Promise<void>;
  readonly warn: (message: string) => void;
}

export class LiveSize {
  readonly #options: LiveSizeOptions;
  /** Processors that are online, and that are plugged in. */
  #vcpus: number;
  #plugged: number;
  /** Bytes of plugged memory that the guest is to use, and that it was last seen to use. */
  #requested = 0;
  #used = 0;
  #hasDevice = false;
  #watches = false;

  constructor(options: LiveSizeOptions) {
    this.#options = options;
    this.#vcpus = options.base.vcpus;
    this.#plugged = options.base.vcpus;
  }

  /** Whether anything was ever plugged in: it stays, even where the guest does without it again. */
  get hasGrown(): boolean {
    return this.#hasDevice || this.#plugged > this.#options.base.vcpus;
  }

  /** What the machine has, and was told to have. */
  get size(): MachineSize {
    return { vcpus: this.#vcpus, memoryBytes: this.#options.base.memoryBytes + this.#requested };
  }

  /** The size that is at least the one wanted, in whole steps; never less than the machine was made with. It may be more than the limits. */
  fitting({ vcpus, memoryBytes }: MachineSize): MachineSize {
    const { base } = this.#options;
    const steps = Math.ceil(Math.max(0, memoryBytes - base.memoryBytes) / memoryStepBytes);
    return { vcpus: Math.max(vcpus, base.vcpus), memoryBytes: base.memoryBytes + steps * memoryStepBytes };
  }

  /** Grows to a `fitting` size within the limits, where it is larger in anything. Throws `vmm`, `guest` or `deadline`, with the machine as it was. */
  async grow(to: MachineSize): Promise<void> {
    const [vcpus, requested] = [this.#vcpus, this.#requested];
    const addedBytes = to.memoryBytes - this.#options.base.memoryBytes;
    if (to.vcpus <= vcpus && addedBytes <= requested) return;
    try {
      if (addedBytes > requested) await this.#plugMemory(addedBytes);
      if (to.vcpus > this.#plugged) {
        await this.#options.vm().plugProcessors(to.vcpus);
        this.#plugged = to.vcpus;
      }
      await this.#tellGuest(Math.max(to.vcpus, vcpus));
    } catch (error) {
      await this.#undo(vcpus, requested);
      throw error;
    }
  }

  /** Gives back what is beyond a `fitting` size: processors at once, memory as the guest frees it. Throws `vmm`, `guest` or `deadline`. */
  async shrink(to: MachineSize): Promise<void> {
    const requested = Math.max(0, to.memoryBytes - this.#options.base.memoryBytes);
    if (requested < this.#requested) await this.#takeMemory(requested);
    if (to.vcpus < this.#vcpus) await this.#tellGuest(to.vcpus);
  }

  async #plugMemory(addedBytes: number): Promise<void> {
    const { base, limits, shared, vm, allowMemory } = this.#options;
    await allowMemory(base.memoryBytes + Math.max(addedBytes, this.#used));
    this.#requested = addedBytes;
    if (this.#hasDevice) return vm().requestMemory(addedBytes);
    if (!this.#watches) vm().watchMemory((bytes) => this.#seeMemory(bytes));
    this.#watches = true;
    await vm().plugMemory({ bytes: addedBytes, capacityBytes: limits.memoryBytes - base.memoryBytes, shared });
    this.#hasDevice = true;
  }

  async #takeMemory(requested: number): Promise<void> {
    this.#requested = requested;
    if (this.#hasDevice) await this.#options.vm().requestMemory(requested);
    await this.#tellMemory();
  }

  /** After a failure, which is the news: a machine that cannot go back either has more than it needs, and keeps it. */
  async #undo(vcpus: number, requested: number): Promise<void> {
    const failed = (error: unknown): void => this.#options.warn(`the virtual machine keeps what it was given: ${explain(error)}`);
    if (this.#requested > requested) await this.#takeMemory(requested).catch(failed);
    if (this.#plugged > vcpus) await this.#tellGuest(vcpus).catch(failed);
  }

  async #tellGuest(vcpus: number): Promise<void> {
    await this.#options.agent().call("resizeSandbox", { vcpus, addedMemoryBytes: BigInt(this.#requested) });
    this.#vcpus = vcpus;
  }

  #seeMemory(bytes: number): void {
    this.#used = bytes;
    void this.#tellMemory();
  }

  async #tellMemory(): Promise<void> {
    const { base, allowMemory, warn } = this.#options;
    try {
      await allowMemory(base.memoryBytes + Math.max(this.#requested, this.#used));
    } catch (error) {
      warn(`the sandbox may take as much of the host's memory as before: ${explain(error)}`);
    }
  }
}
