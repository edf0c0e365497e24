/** One sandbox: a VM on this host, the agent in it, and the one fate they share. */
import { randomBytes } from "node:crypto";
import type { AgentClient } from "../agent/agent-client.ts";
import { HuskError } from "../errors.ts";
import { withDeadline } from "../host/deadline.ts";
import { deferred } from "../host/deferred.ts";
import type { SandboxMount } from "../host/sandbox-plan.ts";
import { type ProgramEnd, SandboxProcess } from "../host/sandbox-process.ts";
import { GuestConsole } from "../vmm/guest-console.ts";
import { QemuVm } from "../vmm/qemu/qemu-vm.ts";
import { shortPath } from "./run-folder.ts";
import { channelCount, planSandbox, type SandboxSpec, sandboxUser, sharedFolders } from "./sandbox-plan.ts";

/** What the guest said of itself. */
export interface GuestIdentity {
  readonly agentVersion: string;
  readonly kernelRelease: string;
}

export class Sandbox {
  /** Who QEMU runs as. */
  readonly user: number;
  /** Settles with the reason, in words for a user, when the VM can no longer work; never rejects. */
  readonly died: Promise<string>;

  readonly #spec: SandboxSpec;
  readonly #process: SandboxProcess;
  readonly #console: GuestConsole;
  readonly #died = deferred<string>();
  #agent: AgentClient | undefined;
  #vm: QemuVm | undefined;
  #closing = false;

  /** Starts the VM and returns at once; `connect` waits for it. */
  static launch(spec: SandboxSpec): Sandbox {
    return new Sandbox(spec);
  }

  private constructor(spec: SandboxSpec) {
    this.#spec = spec;
    this.#process = SandboxProcess.start(spec.programs.helper, channelCount);
    this.user = sandboxUser(this.#process.pid);
    this.died = this.#died.promise;
    const [, consoleStream] = this.#process.channels;
    if (consoleStream === undefined) throw new HuskError("internal", "the sandbox has no console channel");
    this.#console = new GuestConsole(consoleStream, spec.consoleLog, spec.guestConsoleBytes);
    const plan = planSandbox(spec, this.#process.pid);
    this.#process.launch(plan);
    for (const { name } of plan.processes) this.#watch(name);
  }

  /** The sandbox's network namespace, by a path of the host. Rejects where the sandbox could not be made. */
  async netns(): Promise<string> {
    return this.#spec.netns ?? `/proc/${await this.#process.initPid}/ns/net`;
  }

  /** The agent's client. Throws before `connect` has been awaited. */
  get agent(): AgentClient {
    if (this.#agent === undefined) throw new HuskError("internal", "the sandbox is not connected yet");
    return this.#agent;
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
    const { bootMs, callMs } = this.#spec.deadlines;
    const died = this.died.then((reason) => Promise.reject(new HuskError("vmm", `the VM of "${this.#spec.id}" did not start: ${reason}`)));
    const connecting = async (): Promise<GuestIdentity> => {
      const [{ AgentClient }] = await Promise.all([import("../agent/agent-client.ts"), this.#process.initPid]);
      const [qmp] = this.#process.channels;
      if (qmp === undefined) throw new HuskError("internal", "the sandbox has no QMP channel");
      // Whatever begins to wait from here on is ended by `close`.
      if (this.#closing) throw new HuskError("vmm", `the VM of "${this.#spec.id}" is being ended`);
      const socket = shortPath(this.#spec.agentSocket);
      try {
        this.#agent = new AgentClient(socket.path, callMs);
        const [vm] = await Promise.all([QemuVm.open(qmp, this.#spec.networkPorts, bootMs), this.#agent.ready(bootMs)]);
        this.#vm = vm;
      } finally {
        socket.release();
      }
      const agent = this.#agent;
      const answer = await agent.call(
        "createSandbox",
        {
          sandboxId: this.#spec.id,
          hostname: "husk",
          clockUnixNs: BigInt(Date.now()) * 1_000_000n,
          randomSeed: randomBytes(64),
          shares: sharedFolders(this.#spec),
        },
        bootMs,
      );
      return { agentVersion: answer.agentVersion, kernelRelease: answer.kernelRelease };
    };
    try {
      return await Promise.race([connecting(), died]);
    } catch (error) {
      // A failure is most often the first sign of the VM's death, whose reason is the better story.
      const reason = await withDeadline(this.died, 500, "the VM").catch(() => undefined);
      if (reason !== undefined) throw new HuskError("vmm", `the VM of "${this.#spec.id}" did not start: ${reason}`);
      const words = this.#console.lastWords();
      throw words === "" ? error : new HuskError("guest", `the guest's console ends with: ${words}`, { cause: error });
    }
  }

  /** Shows a further host path to the guest, below the shared folder. */
  mount(mount: SandboxMount): Promise<void> {
    return this.#process.mount(mount);
  }

  /** Takes away what `mount` showed. */
  unmount(target: string): Promise<void> {
    return this.#process.unmount(target);
  }

  /**
   * Ends the sandbox. Where the guest still answers it is first asked to write back what it holds; it gets `graceMs` for that. Afterwards no process
   * and no mount of the sandbox is left.
   */
  async close(graceMs: number): Promise<void> {
    const alive = !this.#closing;
    this.#closing = true;
    const agent = this.#agent;
    if (alive && agent !== undefined && graceMs > 0) {
      const asked = agent.call("shutdown", {}, graceMs).then(
        () => {},
        () => {}, // a guest that cannot say goodbye is ended all the same
      );
      await Promise.race([asked, this.died]);
    }
    agent?.close();
    await this.#process.kill();
  }

  /** The first program to end takes the whole sandbox with it. What all of them said is complete only once all are gone. */
  #watch(name: string): void {
    const report = async (reason: () => string): Promise<void> => {
      if (this.#closing) return;
      this.#closing = true;
      await this.#process.kill();
      this.#died.resolve(reason());
    };
    this.#process.programEnd(name).then(
      async (end) => {
        // A server of QEMU's ends in peace when QEMU hangs up: then it is QEMU's end that tells the story.
        const consequence = name !== "qemu" && end.code === 0;
        if (consequence) await withDeadline(this.#process.programEnd("qemu"), 500, "QEMU").catch(() => {});
        await report(() => this.#describe(end));
      },
      (error: Error) => report(() => error.message),
    );
  }

  /** Why the VM is dead, from how one of its programs ended and what it and the guest said. */
  #describe(end: ProgramEnd): string {
    const program = end.name === "qemu" ? "QEMU" : end.name;
    const said = this.#process.stderr.lines(4).join(" | ");
    const suffix = said === "" ? "" : `: ${said}`;
    if (end.signal !== undefined) return `${program} was killed by signal ${end.signal}${suffix}`;
    if (end.code !== 0) return `${program} ended with status ${end.code ?? "unknown"}${suffix}`;
    const words = this.#console.lastWords();
    return `the guest ended by itself${words === "" ? "" : `: ${words}`}`;
  }
}
