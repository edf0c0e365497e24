/** One attempt at a sandbox's VM: its processes on the host, from their start to their end, whether it is booted or cloned from a template. */
import { close, openSync } from "node:fs";
import { constants } from "node:os";
import { demandSameQemu } from "../checkpoint/manifest.ts";
import type { GuestMemory } from "../checkpoint/pages.ts";
import { explain, HuskError } from "../errors.ts";
import { joinCgroups } from "../host/cgroups.ts";
import { withDeadline } from "../host/deadline.ts";
import { deferred } from "../host/deferred.ts";
import type { SandboxMount } from "../host/sandbox-plan.ts";
import { type ProgramEnd, SandboxProcess } from "../host/sandbox-process.ts";
import { hasCode } from "../host/system-error.ts";
import type { ImageDisk } from "../storage/container-storage.ts";
import { copier } from "../template/clone.ts";
import { folderServer, share } from "../template/share.ts";
import { hypervisorUser } from "../vmm/confinement.ts";
import { GuestConsole } from "../vmm/guest-console.ts";
import { firstCopysGivenSet, firstGivenSet, isFolder, pluggedDevices } from "../vmm/qemu/command-line.ts";
import { QemuVm } from "../vmm/qemu/qemu-vm.ts";
import {
  channelCount,
  copiesZygote,
  isFilled,
  mapsTemplate,
  memoryPath,
  planMachine,
  planSandbox,
  type SandboxSpec,
  stateDescriptor,
} from "./sandbox-plan.ts";

/** QEMU takes a lock on a disk that it writes to, as late as when the machine goes on. */
function inUse(error: unknown): never {
  if (!(error instanceof HuskError && error.message.includes('Failed to get "write" lock'))) throw error;
  throw new HuskError("invalid-argument", "root.path: another virtual machine writes to the disk", { cause: error });
}

/** open(2): for the file to be there, and for nothing to be done with it; of a file that it is not, nothing comes. Node has no name for it. */
const O_PATH = 0o10000000;

export class Launch {
  /** Who QEMU runs as. */
  readonly user: number;
  /** Settles with the reason, in words for a user, when the VM can no longer work; never rejects. */
  readonly died: Promise<string>;
  /** The VM, as soon as QEMU can be talked to. */
  readonly vm: Promise<QemuVm>;
  /** Settles when the guest runs: at once where it is booted, after the restore where it is cloned, after `goOn` where it goes on from a checkpoint. */
  readonly running: Promise<void>;

  #spec: SandboxSpec;
  readonly #process: SandboxProcess;
  readonly #console: GuestConsole;
  readonly #died = deferred<string>();
  readonly #mayGoOn = deferred<void>();
  /** The programs that the sandbox does without. */
  readonly #needless = new Set<string>();
  #nextSet: number;
  #closing = false;
  #wasKilled = false;

  constructor(spec: SandboxSpec, mark: (phase: string) => void, process = SandboxProcess.start(spec.programs.helper, channelCount)) {
    this.#spec = spec;
    this.#nextSet = copiesZygote(spec) ? firstCopysGivenSet : firstGivenSet;
    this.#process = process;
    this.user = hypervisorUser(this.#process.pid);
    this.died = this.#died.promise;
    const [control, consoleStream] = this.#process.channels;
    if (control === undefined || consoleStream === undefined) throw new HuskError("internal", "the sandbox lacks a channel");
    this.#console = new GuestConsole(consoleStream, spec.consoleLog, spec.guestConsoleBytes);
    const plan = planSandbox(spec, this.#process.pid);
    this.#process.launch(plan);
    for (const { name } of plan.processes) if (name !== copier) this.#watch(name);
    this.vm = copiesZygote(spec)
      ? this.#process.programStart("qemu").then(() => QemuVm.resume(control, spec.networkPorts, spec.zygote.greeting))
      : this.#process.initPid.then(() => QemuVm.open(control, spec.networkPorts, spec.deadlines.bootMs));
    const booted = spec.template === null && spec.checkpoint === undefined;
    this.running = booted ? this.#process.initPid.then(() => {}) : this.#restore(mark);
    for (const promise of [this.vm, this.running]) promise.catch(() => {}); // whoever awaits it gets it
  }

  /** Of what it is made; once it is adopted, whose it is. */
  get spec(): SandboxSpec {
    return this.#spec;
  }

  /** The host's PID of the sandbox's PID 1. Rejects where the sandbox could not be made. */
  get initPid(): Promise<number> {
    return this.#process.initPid;
  }

  /** Whether it is being ended, by us or by itself. */
  get closing(): boolean {
    return this.#closing;
  }

  /** Whether somebody killed one of its processes. */
  get wasKilled(): boolean {
    return this.#wasKilled;
  }

  /** What the guest's console last said. */
  lastWords(): string {
    return this.#console.lastWords();
  }

  /** Lets a machine of a checkpoint go on, once all of its devices are there. */
  goOn(): void {
    this.#mayGoOn.resolve();
  }

  /** The host's PID of QEMU. Throws `host` where it does not run. */
  get qemuPid(): number {
    const pid = this.#process.programPid("qemu");
    if (pid === undefined) throw new HuskError("host", "QEMU does not run");
    return pid;
  }

  /** Ends the folder's server, whose device is gone; that is no death. */
  async endFolderServer(): Promise<void> {
    this.#needless.add(folderServer);
    await this.#process.signal(folderServer, constants.signals.SIGKILL);
    await this.#process.programEnd(folderServer);
  }

  /** Where the guest's memory is. Throws `host` where QEMU does not run. */
  get memory(): GuestMemory {
    const pid = this.qemuPid;
    return { path: memoryPath(pid), mappedBy: mapsTemplate(this.spec) ? pid : null };
  }

  /** Shows a further host path to the guest, below the shared folder. */
  mount(mount: SandboxMount): Promise<void> {
    return this.#process.mount(mount);
  }

  unmount(target: string): Promise<void> {
    return this.#process.unmount(target);
  }

  /** Gives the machine, which is paused, disks that it did not have when it was launched. Throws `vmm`, `host`, or `invalid-argument` where one is in use. */
  async plugDisks(disks: readonly ImageDisk[]): Promise<void> {
    if (disks.length === 0) return;
    const firstSet = this.#nextSet;
    this.#nextSet += disks.length;
    await Promise.all(disks.map(({ path, readonly }, index) => this.#process.give(firstSet + index, path, !readonly)));
    const machine = planMachine({ ...this.spec, disks }, 0);
    const vm = await this.vm;
    await vm.plugDisks(machine.disks, firstSet, pluggedDevices(machine)).catch(inUse);
  }

  /** Makes a tap for QEMU in its network namespace. Throws `host`. */
  makeTap(name: string): Promise<void> {
    return this.#process.makeTap(name);
  }

  /** Makes what waited for nobody the sandbox of `spec`, as far as its processes on the host go. */
  async adopt(spec: SandboxSpec): Promise<void> {
    const { cgroups, consoleLog } = spec;
    const { template, zygote } = this.#spec;
    this.#spec = { ...spec, template, zygote };
    this.#console.moveTo(consoleLog);
    await joinCgroups(cgroups, await this.#process.pids());
  }

  /** Changes the plan's `remains`. */
  setRemains(program: readonly string[]): Promise<void> {
    return this.#process.setRemains(program);
  }

  /** What `remains` is for is done. */
  nothingRemains(): void {
    this.#process.nothingRemains();
  }

  /** Those of everything that is in the sandbox. */
  pids(): Promise<number[]> {
    return this.#process.pids();
  }

  /** The PID of the process that ends the sandbox with its supervisor. */
  get helperPid(): number {
    return this.#process.pid;
  }

  /** From here on, an end is no death. */
  expectEnd(): void {
    this.#closing = true;
  }

  /** Ends every process of it. */
  async kill(): Promise<void> {
    this.#closing = true;
    const memory = this.#holdMemory();
    await this.#process.kill();
    if (memory !== undefined) close(memory, () => {}); // on another thread
  }

  /** A descriptor of the guest's memory, where it has any: to free it takes the kernel longer than all else, and nobody is to wait for that. */
  #holdMemory(): number | undefined {
    const pid = this.#process.programPid("qemu");
    try {
      return pid === undefined ? undefined : openSync(memoryPath(pid), O_PATH);
    } catch (error) {
      if (!hasCode(error, "ENOENT", "ESRCH", "EACCES")) throw error;
      return undefined; // it has ended
    }
  }

  async #restore(mark: (phase: string) => void): Promise<void> {
    // A template's memory that is mapped is in place before QEMU starts, as is what was filled.
    const copied = mapsTemplate(this.spec) || isFilled(this.spec) ? Promise.resolve() : this.#copied(mark);
    const died = this.died.then((reason) => Promise.reject(new HuskError("vmm", reason)));
    for (const promise of [copied, died]) promise.catch(() => {}); // they may come when something else has failed already
    const opened = this.vm.then((vm) => {
      mark(copiesZygote(this.spec) ? "QEMU copied" : "QEMU answers");
      return vm;
    });
    const { checkpoint } = this.spec;
    try {
      const vm = await Promise.race([opened, died]);
      await Promise.race([copied, died]);
      if (checkpoint !== undefined) {
        demandSameQemu(checkpoint.manifest.qemu, vm.version);
        await Promise.race([this.#mayGoOn.promise, died]);
      }
      await Promise.race([this.#begin(vm).catch(inUse), died]);
    } catch (error) {
      // A failure may be the first sign of an end, which tells whether somebody caused it.
      await withDeadline(this.died, 500, "the VM").catch(() => {});
      throw error;
    }
    mark(copiesZygote(this.spec) ? "copy runs" : `restored from the ${checkpoint === undefined ? "template" : "checkpoint"}`);
  }

  #begin(vm: QemuVm): Promise<void> {
    const { bootMs } = this.spec.deadlines;
    const machine = planMachine(this.spec, 0);
    const devices = pluggedDevices(machine);
    // All but the folder are in place.
    if (this.spec.checkpoint !== undefined)
      return vm.restore(stateDescriptor, { known: devices.known.filter(isFolder), added: [] }, bootMs);
    const folders = this.spec.shares ? [share] : [];
    return copiesZygote(this.spec) ? vm.wake(folders, machine.disks, devices) : vm.restore(stateDescriptor, devices, bootMs);
  }

  async #copied(mark: (phase: string) => void): Promise<void> {
    const { code } = await this.#process.programEnd(copier);
    if (code !== 0) throw new HuskError("host", "the saved memory could not be copied", { cause: this.#process.stderr.lines(1).join("") });
    mark("saved memory copied");
  }

  /** The first program to end takes the whole sandbox with it. What all of them said is complete only once all are gone. */
  #watch(name: string): void {
    const report = async (reason: () => string): Promise<void> => {
      if (this.#closing || this.#needless.has(name)) return;
      this.#closing = true;
      await this.#process.kill();
      this.#died.resolve(reason());
    };
    this.#process.programEnd(name).then(
      async (end) => {
        if (this.#needless.has(name)) return;
        // A server of QEMU's ends in peace when QEMU hangs up: then it is QEMU's end that tells the story.
        this.#wasKilled ||= end.signal !== undefined;
        const consequence = name !== "qemu" && end.code === 0;
        if (consequence) await withDeadline(this.#process.programEnd("qemu"), 500, "QEMU").catch(() => {});
        await report(() => this.#describe(end));
      },
      async (error: Error) => {
        // What could not be started is the host's fault, what ended is somebody's.
        this.#wasKilled ||= error instanceof HuskError && error.code === "vmm";
        await report(() => explain(error));
      },
    );
  }

  /** Why the VM is dead, from how one of its programs ended and what it and the guest said. */
  #describe(end: ProgramEnd): string {
    const program = end.name === "qemu" ? "QEMU" : end.name;
    const said = this.#process.stderr.lines(4).join(" | ");
    const suffix = said === "" ? "" : `: ${said}`;
    if (end.signal !== undefined) return `${program} was killed by signal ${end.signal}${suffix}`;
    if (end.code !== 0) return `${program} ended with status ${end.code ?? "unknown"}${suffix}`;
    // A signal that asks QEMU to end is said by it, and its status is 0 nevertheless: that is not the guest's doing.
    const asked = this.#process.stderr.lines(4).find((line) => line.includes("terminating on signal"));
    if (asked !== undefined) return `QEMU ended as it was asked to: ${asked}`;
    const words = this.#console.lastWords();
    return `the guest ended by itself${words === "" ? "" : `: ${words}`}`;
  }
}
