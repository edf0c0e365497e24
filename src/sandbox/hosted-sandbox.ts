/** A sandbox together with what it takes of the host outside its namespaces: cgroups, and taps in a network namespace of others. All of it is in a ledger. */
import { noteInLedger } from "../host/ledger.ts";
import type { SandboxCgroups } from "../host/sandbox-cgroups.ts";
import { type GuestLink, type MirrorOptions, NetworkMirror } from "../network/mirror.ts";
import type { SizeDefaults } from "../oci/resources.ts";
import type { GuestIdentity } from "./introduction.ts";
import { SandboxLimits } from "./limits.ts";
import { type LaunchObserver, Sandbox } from "./sandbox.ts";
import type { SandboxSpec } from "./sandbox-plan.ts";

/** Gives the sandbox of `spec`, on its way at least. */
export type LaunchSandbox = (spec: SandboxSpec, observer: LaunchObserver) => Sandbox;

export interface HostedSandboxSpec {
  readonly sandbox: Omit<SandboxSpec, "cgroups">;
  /** Where the ledger is kept, from now on: it may move. */
  readonly ledger: () => string;
  /** Where the socket for connections to localhost in a network namespace of others may be, as long as the sandbox lives. */
  readonly forwardSocket: string;
  /** What everything of the sandbox joins. */
  readonly cgroups: SandboxCgroups;
  /** What sizes follow where limits do not say. */
  readonly sizing: SizeDefaults;
  readonly observer: LaunchObserver;
  /** Where the sandbox comes from; absent: it is launched now. */
  readonly launch?: LaunchSandbox;
  /** Takes what is worth a line in the log. */
  readonly warn: (message: string) => void;
}

export class HostedSandbox {
  readonly sandbox: Sandbox;
  /** The folders that everything of the sandbox joins. */
  readonly cgroups: readonly string[];
  /** Every cgroup that was made for the sandbox, those above its own and its members' among them. */
  readonly madeCgroups: Set<string>;
  /** Those of its containers, and what follows from them. */
  readonly limits: SandboxLimits;
  readonly #spec: HostedSandboxSpec;
  #connected: Promise<GuestIdentity> | undefined;
  #network: NetworkMirror | undefined;
  #mirroring: Promise<NetworkMirror> | undefined;

  /** Starts the VM; `connect` waits for it. */
  static launch(spec: HostedSandboxSpec): HostedSandbox {
    return new HostedSandbox(spec);
  }

  private constructor(spec: HostedSandboxSpec) {
    this.#spec = spec;
    this.cgroups = spec.cgroups.folders;
    this.madeCgroups = new Set(spec.cgroups.made);
    this.sandbox = (spec.launch ?? Sandbox.launch)({ ...spec.sandbox, cgroups: spec.cgroups.folders }, spec.observer);
    const joined = (): void => spec.cgroups.joined();
    this.sandbox.joined().then(joined, joined);
    this.limits = new SandboxLimits({
      ...spec,
      ...spec.sandbox,
      base: spec.sandbox,
      vm: () => this.sandbox.vm,
      agent: () => this.sandbox.agent,
    });
  }

  /** Whether the guest can be shown folders of the host. */
  get showsFolders(): boolean {
    return this.#spec.sandbox.shares;
  }

  /** Waits until the guest's agent answers, however often it is asked. Throws as `Sandbox.connect`. */
  connect(): Promise<GuestIdentity> {
    this.#connected ??= this.sandbox.connect();
    return this.#connected;
  }

  /** Waits until the guest's agent answers and `work`, done meanwhile, is done. Throws as `connect` and `work`. */
  async startWith<T>(work: Promise<T>): Promise<T> {
    const [done] = await Promise.all([this.sandbox.whileStarting(work), this.connect()]);
    return done;
  }

  /**
   * Mirrors the network namespace into the guest, as it is now and as it changes. Throws `host`, `vmm` or `guest`, with every tap taken away again.
   */
  async mirrorNetwork(): Promise<void> {
    const mirroring = this.#mirrorOptions().then((options) => NetworkMirror.start(options, this.sandbox.vm, this.sandbox.agent));
    this.#mirroring = mirroring;
    this.#network = await mirroring;
  }

  /** The guest's network devices, for a checkpoint. Throws `wrong-state` where the guest has one that it was told to let go of. */
  get links(): readonly GuestLink[] {
    return this.#network?.devices ?? [];
  }

  /**
   * Lets the machine of a checkpoint go on, with the links of the network namespace behind its devices; nothing in its containers runs yet. Throws
   * `invalid-argument` where the namespace lacks a link, and as `mirrorNetwork` and `connect`.
   */
  async goOn(links: readonly GuestLink[]): Promise<void> {
    const vm = await this.sandbox.whileStarting(this.sandbox.waitingVm());
    const network = await this.sandbox.whileStarting(NetworkMirror.restore(await this.#mirrorOptions(), vm, links));
    this.#network = network;
    this.sandbox.goOn();
    await this.connect();
    await network.follow(this.sandbox.agent);
  }

  async #mirrorOptions(): Promise<MirrorOptions> {
    const { sandbox, ledger, warn } = this.#spec;
    const [vmNetns, netns] = await Promise.all([this.sandbox.vmNetns(), this.sandbox.netns()]);
    const owner = this.sandbox.user;
    const makeTap = async (tap: string, link: string): Promise<void> => {
      // The taps in a namespace of the sandbox's own end with it.
      if (sandbox.netns !== null) noteInLedger(ledger(), { kind: "tap", netns: sandbox.netns, link, tap, owner });
      await this.sandbox.makeTap(tap);
    };
    const { helper } = sandbox.programs;
    // In a namespace of the sandbox's own, nobody dials localhost.
    const forwardSocket = sandbox.netns === null ? null : this.#spec.forwardSocket;
    if (forwardSocket !== null) noteInLedger(ledger(), { kind: "file", path: forwardSocket });
    return { helper, netns, vmNetns, owner, vhost: sandbox.vhostNet, forwardSocket, makeTap, warn };
  }

  /** Ends the sandbox as `Sandbox.close`, and what is in its network namespace for it. What the ledger names stays. */
  async close(graceMs: number): Promise<void> {
    await Promise.all([this.#endMirror(), this.sandbox.close(graceMs)]);
    this.sandbox.releaseNetwork();
  }

  /** One that is still being begun fails with the sandbox, and gives back what it has taken. */
  async #endMirror(): Promise<void> {
    await this.#mirroring?.catch(() => {});
    await this.#network?.close();
  }
}
