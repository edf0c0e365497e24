/** One sandbox: a VM on this host, the agent in it, and the one fate they share. */
import { rmSync } from "node:fs";
import type { AgentClient } from "../agent/agent-client.ts";
import type { GuestMemory } from "../checkpoint/pages.ts";
import { explain, HuskError } from "../errors.ts";
import { withDeadline } from "../host/deadline.ts";
import { deferred } from "../host/deferred.ts";
import { HeldNetwork } from "../host/namespaces.ts";
import type { SandboxMount } from "../host/sandbox-plan.ts";
import type { SandboxProcess } from "../host/sandbox-process.ts";
import type { Greeting } from "../qmp/message.ts";
import type { ImageDisk } from "../storage/container-storage.ts";
import { discardTemplate } from "../template/template.ts";
import { endZygote, zygoteKeeper } from "../template/zygote.ts";
import { agentPortId } from "../vmm/machine.ts";
import type { QemuVm } from "../vmm/qemu/qemu-vm.ts";
import { type GuestIdentity, introduce } from "./introduction.ts";
import { Launch } from "./launch.ts";
import { Occupancy } from "./occupancy.ts";
import { Outputs } from "./outputs.ts";
import { shortPath } from "./run-folder.ts";
import { copiesZygote, type SandboxSpec, sharedFolders } from "./sandbox-plan.ts";
import { startZygote } from "./start-zygote.ts";

/** Who is told of a launch's progress. */
export interface LaunchObserver {
  /** A phase of the start has ended. */
  readonly mark: (phase: string) => void;
  /** What the VM was to come from could not be used; a sentence says why, and what is tried instead. */
  readonly fellBack: (message: string) => void;
}

/** With less, a kernel that says nothing may have stopped for want of memory: Debian's, with its initramfs, needs more than 128 MiB. */
const scarceMebibytes = 160;

export class Sandbox {
  /** Settles with the reason, in words for a user, when the VM can no longer work; never rejects. */
  readonly died: Promise<string>;
  /** What comes of its processes. */
  readonly outputs = new Outputs();
  /** Its containers. */
  readonly occupancy = new Occupancy();

  #spec: SandboxSpec;
  readonly #observer: LaunchObserver;
  readonly #died = deferred<string>();
  /** Settles when it is decided whether the VM was cloned or is booted, and it runs. */
  readonly #running: Promise<void>;
  /** Settles when a sandbox that waited in a pool has become its taker's. */
  #adopted: Promise<void> = Promise.resolve();
  /** Resolves to what the guest of one that waited has answered when it was introduced to its taker. */
  #awakened: Promise<GuestIdentity> | undefined;
  /** Whether its guest has let go of the folder's device. */
  #isParked = false;
  #launch: Launch;
  #agent: AgentClient | undefined;
  #vm: QemuVm | undefined;
  /** That of its containers, where it is not QEMU's. */
  #network: HeldNetwork | undefined;
  #closing = false;

  /** Starts the VM, with a helper that runs already where there is one, and returns at once; `connect` waits for it. */
  static launch(spec: SandboxSpec, observer: LaunchObserver, helper?: SandboxProcess): Sandbox {
    return new Sandbox(spec, observer, helper);
  }

  private constructor(spec: SandboxSpec, observer: LaunchObserver, helper: SandboxProcess | undefined) {
    this.#spec = spec;
    this.#observer = observer;
    this.died = this.#died.promise;
    this.#launch = new Launch(spec, observer.mark, helper);
    this.#running = spec.template === null || spec.checkpoint !== undefined ? this.#run() : this.#runClone();
    this.#running.catch(() => {}); // whoever awaits it gets it
  }

  /** What is run once the sandbox is dead with its supervisor, from now on. */
  setRemains(program: readonly string[]): Promise<void> {
    return this.#launch.setRemains(program);
  }

  /** What `remains` is for is done. */
  nothingRemains(): void {
    this.#launch.nothingRemains();
  }

  /**
   * Lets a sandbox of a pool go on, which is connected and paused: gives it its disks and folders, and introduces it to its guest anew. Returns at once; `adopt` is to follow, and
   * does this as well where nobody has. Nothing of a container's runs in it before that.
   */
  awaken(own: Pick<SandboxSpec, "id" | "hostname" | "disks" | "mounts">): void {
    const shown = Promise.all(own.mounts.map((mount) => this.#launch.mount(mount)));
    const awakened = this.#launch.plugDisks(own.disks).then(async () => {
      // The introduction waits in the channel for the machine.
      const [identity] = await Promise.all([introduce(this.agent, own, [], this.#spec.deadlines.bootMs), this.vm.resume(), shown]);
      return identity;
    });
    for (const promise of [shown, awakened]) promise.catch(() => {}); // whoever awaits it gets it
    this.#awakened = awakened;
  }

  /**
   * Of one that has waited in a pool: resolves when its guest can be told what to make, though its taker's side on the host may not be done, which `connect` waits for;
   * nothing of a container's may run before. undefined for all others.
   */
  get awakened(): Promise<unknown> | undefined {
    return this.#awakened;
  }

  /**
   * Makes a sandbox of a pool the one of `spec`, whose machine must be the same, and returns at once; `connect` waits for it, and for `work` that is
   * done for it meanwhile.
   */
  adopt(spec: SandboxSpec, work: Promise<void>): void {
    this.#spec = spec;
    if (this.#awakened === undefined) this.awaken(spec);
    this.meanwhile(Promise.all([this.#launch.adopt(spec), work]).then(() => {}));
  }

  /** Has `connect` wait for `work` as well, which is done for one that is launched. */
  meanwhile(work: Promise<void>): void {
    this.#adopted = work;
    work.catch(() => {}); // whoever awaits it gets it
  }

  /** The PID of the process on the host that ends the sandbox with its supervisor. */
  get helperPid(): number {
    return this.#launch.helperPid;
  }

  /** The host's PIDs of all of its processes. */
  async pids(): Promise<number[]> {
    return [this.helperPid, ...(await this.#launch.pids())];
  }

  /** Who QEMU runs as. Known for good once `vmNetns` or `connect` has resolved. */
  get user(): number {
    return this.#launch.user;
  }

  /**
   * The network namespace of its containers, by a path of the host that holds as long as the sandbox lives: engines may take the one away by which it was named.
   * Rejects where there is none, or the sandbox could not be made.
   */
  async netns(): Promise<string> {
    const { netns } = this.#spec;
    if (netns === null) return this.vmNetns();
    const held = (this.#network ??= new HeldNetwork(netns));
    await this.vmNetns();
    return held.path;
  }

  /** QEMU's network namespace, likewise. Nobody else is in it, unless it is that of the containers too. */
  async vmNetns(): Promise<string> {
    if (this.#spec.checkpoint === undefined) await this.#running; // it may be launched a second time
    return `/proc/${await this.#launch.initPid}/ns/net`;
  }

  /** Makes a tap for QEMU in its network namespace. Throws `host`. */
  makeTap(name: string): Promise<void> {
    return this.#launch.makeTap(name);
  }

  /** Settles when its processes are in their cgroups: PID 1 joins them before anything else. Rejects where they could not. */
  async joined(): Promise<void> {
    await this.#running;
    await this.#adopted;
  }

  /** The agent's client. Throws before `connect` has been awaited. */
  get agent(): AgentClient {
    if (this.#agent === undefined) throw new HuskError("internal", "the sandbox is not connected yet");
    return this.#agent;
  }

  /** Of what it is made: known for good once `connect` has resolved. */
  get spec(): SandboxSpec {
    return this.#launch.spec;
  }

  /** QEMU, paused, where it waits for `goOn`. Throws `vmm`, `host` or `deadline`. */
  async waitingVm(): Promise<QemuVm> {
    const died = this.died.then((reason) => Promise.reject(new HuskError("vmm", `the VM of "${this.#spec.id}" did not start: ${reason}`)));
    // A checkpoint that cannot be restored fails the launch, and does not wait.
    return Promise.race([this.#launch.vm, died, this.#running.then(() => Promise.reject(new HuskError("internal", "it runs already")))]);
  }

  /** Lets the machine of a checkpoint go on; `connect` waits for it. */
  goOn(): void {
    this.#launch.goOn();
  }

  /** Where the guest's memory is. */
  get memory(): GuestMemory {
    return this.#launch.memory;
  }

  /**
   * Has a sandbox that no container is in stand still for good, as its copies are to begin: without its folder's device, and with a guest that waits to be
   * dialled. Resolves to where QEMU is. Throws `guest`, `vmm` or `deadline`.
   */
  async standStill(): Promise<{ readonly pid: number; readonly greeting: Greeting; readonly disks: readonly number[] }> {
    const { agent, vm } = this;
    const { bootMs } = this.#spec.deadlines;
    await this.park();
    await vm.portReopened(agentPortId, () => agent.close(), bootMs);
    await vm.pause();
    await vm.ejectKnown();
    await this.#launch.endFolderServer();
    return { pid: this.#launch.qemuPid, greeting: vm.greeting, disks: await vm.diskStandIns() };
  }

  /** Has the guest let go of the folder that it shows, where it does, and of the first disk: no container is in it. Throws `guest` or `deadline`. */
  async park(): Promise<void> {
    const mountPoints = this.#isParked ? [] : sharedFolders(this.#spec).map(({ mountPoint }) => mountPoint);
    await this.agent.call("parkSandbox", { mountPoints }, this.#spec.deadlines.bootMs);
    this.#isParked = true;
  }

  /** Runs `work` in a sandbox that no container is in, without its folder and with a disk that it has only meanwhile. Throws as `work`, `park`, and `vmm`. */
  async withDisk(disk: ImageDisk, work: () => Promise<void>): Promise<void> {
    if (!this.#isParked) await this.park();
    await this.vm.pause();
    await this.#launch.plugDisks([disk]);
    await this.vm.resume();
    await work();
    await this.park();
    await this.vm.pause();
    await this.vm.ejectDisk();
    await this.vm.resume();
  }

  /** Where a socket in QEMU's tree is, as the host sees it. */
  async pathInTree(path: string): Promise<string> {
    return `/proc/${await this.#launch.initPid}/root${path}`;
  }

  get vm(): QemuVm {
    if (this.#vm === undefined) throw new HuskError("internal", "the sandbox is not connected yet");
    return this.#vm;
  }

  /**
   * Waits until the guest's agent answers, and introduces the sandbox to it. Throws `vmm`, `guest`, `host` or `deadline`, always with what QEMU and the
   * guest's console last said, at once where the VM died.
   */
  async connect(): Promise<GuestIdentity> {
    const died = this.died.then((reason) => Promise.reject(new HuskError("vmm", `the VM of "${this.#spec.id}" did not start: ${reason}`)));
    try {
      const guest = await Promise.race([this.#connect(), died]);
      startZygote(this.#launch.spec);
      return guest;
    } catch (error) {
      await this.#throwIfDead();
      const words = this.#launch.lastWords();
      if (words === "") throw error;
      const mebibytes = Math.floor(this.#spec.memoryBytes / 1024 ** 2);
      const hint =
        mebibytes < scarceMebibytes ? { hint: `its ${mebibytes} MiB may be too few for the guest's kernel: raise vm.memory_overhead` } : {};
      throw new HuskError("guest", `the guest's console ends with: ${words}`, { cause: error, ...hint });
    }
  }

  /** Awaits `work`, which is done for the sandbox while it starts. Throws as `work` does, or the reason why the VM died where that is what made it fail. */
  async whileStarting<T>(work: Promise<T>): Promise<T> {
    try {
      return await work;
    } catch (error) {
      await this.#throwIfDead();
      throw error;
    }
  }

  /** Shows a further host path to the guest, below the shared folder. */
  async mount(mount: SandboxMount): Promise<void> {
    await this.#running;
    return this.#launch.mount(mount);
  }

  /** Takes away what `mount` showed. */
  unmount(target: string): Promise<void> {
    return this.#launch.unmount(target);
  }

  /**
   * Ends the sandbox. Where the guest still answers, and may hold something, it is first asked to write it back; it gets `graceMs` for that. Afterwards no
   * process and no mount of the sandbox is left.
   */
  async close(graceMs: number): Promise<void> {
    const alive = !this.#closing && !this.#launch.closing;
    this.#closing = true;
    this.#launch.expectEnd();
    const agent = this.#agent;
    const holdsSomething = !this.occupancy.isOver || this.#spec.disks.some(({ readonly }) => !readonly);
    if (alive && agent !== undefined && graceMs > 0 && holdsSomething) {
      const asked = agent.call("shutdown", {}, graceMs).then(
        () => {},
        () => {}, // a guest that cannot say goodbye is ended all the same
      );
      await Promise.race([asked, this.died]);
    }
    agent?.close();
    await this.#launch.kill();
  }

  /** Lets go of the network namespace of its containers: nobody uses `netns` any more. */
  releaseNetwork(): void {
    this.#network?.release();
    this.#network = undefined;
  }

  /** A failure is most often the first sign of the VM's death, whose reason is the better story. */
  async #throwIfDead(): Promise<void> {
    const reason = await withDeadline(this.died, 500, "the VM").catch(() => undefined);
    if (reason !== undefined) throw new HuskError("vmm", `the VM of "${this.#spec.id}" did not start: ${reason}`);
  }

  /** Ends the VM as one that has failed: what runs in it ends as killed, and `died` says `reason`. */
  async abort(reason: string): Promise<void> {
    // First of all, since the end of the channel would be taken for the reason.
    if (!this.#closing && !this.#launch.closing) this.#died.resolve(reason);
    await this.#launch.kill();
  }

  async #connect(): Promise<GuestIdentity> {
    if (this.#awakened !== undefined) {
      const [identity] = await Promise.all([this.#awakened, this.#adopted]);
      return identity;
    }
    await this.#dial();
    // The guest of a checkpoint has mounted it.
    const shares = this.#spec.checkpoint === undefined ? sharedFolders(this.#spec) : [];
    const [identity] = await Promise.all([introduce(this.agent, this.#spec, shares, this.#spec.deadlines.bootMs), this.#adopted]);
    return identity;
  }

  async #dial(): Promise<void> {
    const { bootMs, callMs } = this.#spec.deadlines;
    const [{ AgentClient }] = await Promise.all([import("../agent/agent-client.ts"), this.#running]);
    // Whatever begins to wait from here on is ended by `close`.
    this.#refuseWhereClosing();
    const socket = shortPath(this.#spec.agentSocket);
    const agent = new AgentClient(socket.path, callMs, this.#spec.checkpoint?.manifest.nonce);
    this.#agent = agent;
    try {
      const [vm] = await Promise.all([this.#launch.vm, agent.ready(bootMs)]);
      this.#vm = vm;
    } finally {
      socket.release();
    }
  }

  /** The launch's fate is the sandbox's. */
  #run(): Promise<void> {
    void this.#launch.died.then((reason) => this.#died.resolve(reason));
    return this.#launch.running;
  }

  /** A template that cannot be used costs time, and nothing else. */
  async #runClone(): Promise<void> {
    try {
      await this.#launch.running;
      return await this.#run();
    } catch (error) {
      if (this.#launch.wasKilled) {
        await this.#run(); // whoever killed it did not mean to see it come back
        throw error;
      }
      const { template, ...spec } = this.#launch.spec;
      const isCopy = template !== null && copiesZygote(this.#launch.spec);
      // First: a zygote that stands still has what it was sent, and keeps it open. One that this process is making it ends itself, and says why.
      if (isCopy && zygoteKeeper(template)?.pid !== process.pid) endZygote(template);
      await this.#launch.kill();
      this.#refuseWhereClosing();
      rmSync(this.#spec.agentSocket, { force: true }); // it was bound for the clone
      if (isCopy) {
        this.#observer.fellBack(`the template's zygote failed, so the VM is cloned: ${explain(error)}`);
        this.#relaunch({ ...spec, template, zygote: undefined });
        return await this.#runClone();
      }
      this.#observer.fellBack(`the template failed, so the VM boots: ${explain(error)}`);
      if (template !== null) discardTemplate(template);
      this.#relaunch({ ...spec, template: null });
      await this.#run();
    }
  }

  /** In place of a launch that has ended. What remains is from now on the new one's helper's business. */
  #relaunch(spec: SandboxSpec): void {
    const failed = this.#launch;
    this.#launch = new Launch(spec, this.#observer.mark);
    failed.nothingRemains();
  }

  #refuseWhereClosing(): void {
    if (this.#closing) throw new HuskError("vmm", `the VM of "${this.#spec.id}" is being ended`);
  }
}
