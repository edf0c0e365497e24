/**
 * A sandbox and those for whom it is there, its members: the containers in it, as a rule. It is launched for the first of them, its lead, and ends with the
 * last, whichever that is; once it ends, nobody joins it any more.
 */
import { join } from "node:path";
import { HuskError } from "../errors.ts";
import { noteInLedger } from "../host/ledger.ts";
import { type CgroupPlace, type SandboxCgroups, takeCgroups } from "../host/sandbox-cgroups.ts";
import type { ImageDisk, ShownPath } from "../storage/container-storage.ts";
import type { Container } from "./container.ts";
import type { HostedSandbox } from "./hosted-sandbox.ts";

/** What a member needs of the host, in the guest. */
export interface MemberNeeds {
  readonly shown: readonly ShownPath[];
  readonly disks: readonly ImageDisk[];
}

/** How a member parts. */
export interface Parting {
  /** Done before the sandbox ends, where it does; told whether it goes on for others. Must not throw. */
  readonly part?: (goesOn: boolean) => Promise<void>;
  /** Whether a guest that nobody needs any more is given no time to say goodbye. */
  readonly abruptly?: boolean;
}

export class SharedSandbox {
  /** Rejects where it could not be launched. */
  readonly hosted: Promise<HostedSandbox>;
  readonly #end: (hosted: HostedSandbox | undefined, abruptly: boolean) => Promise<void>;
  readonly #members: Set<object>;
  readonly #partings = new Set<Promise<void>>();
  #network: Promise<void> | undefined;
  #over: Promise<void> | undefined;

  /** `end`: ends it; there is no sandbox where it could not be launched. */
  constructor(lead: object, hosted: Promise<HostedSandbox>, end: (hosted: HostedSandbox | undefined, abruptly: boolean) => Promise<void>) {
    this.hosted = hosted;
    this.hosted.catch(() => {}); // whoever awaits it gets it
    this.#members = new Set([lead]);
    this.#end = end;
  }

  /** Resolves when it has ended; undefined until it begins to. */
  get over(): Promise<void> | undefined {
    return this.#over;
  }

  /**
   * Makes `member` one of its members, and shows the guest what that needs. Throws `wrong-state` where the sandbox ends; and where the guest cannot be shown it,
   * `unsupported` or `host`, or as the launch does: it is a member then, and has to leave.
   */
  async join(member: object, { shown, disks }: MemberNeeds): Promise<HostedSandbox> {
    if (this.#over !== undefined) throw new HuskError("wrong-state", "the sandbox is ending");
    this.#members.add(member);
    const hosted = await this.hosted;
    if (disks.length > 0) {
      throw new HuskError("unsupported", "a root file system on a block device can only be that of a sandbox's first container");
    }
    if (shown.length > 0 && !hosted.showsFolders) {
      const hint = "begin with a container whose root file system is a folder";
      throw new HuskError("unsupported", "the sandbox was made without a way to show the guest folders of the host", { hint });
    }
    for (const one of shown) await hosted.sandbox.mount(one);
    return hosted;
  }

  /** Mirrors the network into the guest, once: engines put the interfaces there between create and start. `before` is awaited first. */
  mirrorNetwork(before: Promise<unknown> = Promise.resolve()): Promise<void> {
    const mirror = async (): Promise<void> => {
      await before;
      await (await this.hosted).mirrorNetwork();
    };
    this.#network ??= mirror().catch((error: unknown) => {
      this.#network = undefined;
      throw error;
    });
    return this.#network;
  }

  /** Lets the machine of a checkpoint go on, as `HostedSandbox.goOn`, with its network mirrored. `before` is awaited first. */
  goOn(links: Parameters<HostedSandbox["goOn"]>[0], before: Promise<unknown> = Promise.resolve()): Promise<void> {
    const goOn = async (): Promise<void> => {
      await before;
      await (await this.hosted).goOn(links);
    };
    this.#network ??= goOn();
    return this.#network;
  }

  /** Whether it has more than one member. */
  get isShared(): boolean {
    return this.#members.size > 1;
  }

  /** `next` takes the place of `member`. */
  replace(member: object, next: object): void {
    if (this.#members.delete(member)) this.#members.add(next);
  }

  /**
   * `member` has ended. Resolves when it has parted, and the sandbox has ended where it was the last; one that has left already waits for the end, where that
   * has begun. Throws as the end does.
   */
  async leave(member: object, { part = async () => {}, abruptly = false }: Parting = {}): Promise<void> {
    if (!this.#members.delete(member)) return this.#over;
    if (this.#members.size > 0) {
      const parting = part(true).finally(() => this.#partings.delete(parting));
      this.#partings.add(parting);
      return parting;
    }
    this.#over = this.#finish(part(false), abruptly);
    return this.#over;
  }

  /** Ends it, whoever is still there. */
  async close(): Promise<void> {
    for (const member of this.#members) await this.leave(member);
    await this.#over;
  }

  async #finish(parting: Promise<void>, abruptly: boolean): Promise<void> {
    await Promise.allSettled([parting, ...this.#partings]);
    await this.#end(await this.hosted.catch(() => undefined), abruptly); // who launched it was told
  }
}

/**
 * The cgroups of a member's stand-ins: the sandbox's own for its lead, and for others such as `ledger` knows. Those above that were made for the lead or another
 * member it knows as well: a cgroup goes with the last that is below it, whoever that belongs to. Throws as `takeCgroups`.
 */
export async function memberCgroups(
  { hosted, isLead }: { readonly hosted: HostedSandbox; readonly isLead: boolean },
  place: CgroupPlace,
  ledger: string,
  helper: string,
): Promise<Pick<SandboxCgroups, "folders" | "joined">> {
  if (isLead) return { folders: hosted.cgroups, joined: () => {} };
  const { hierarchies, at } = place;
  const own = typeof at === "string" ? hierarchies.map(({ mountPoint }) => join(mountPoint, at)) : [];
  for (const path of hosted.madeCgroups) {
    if (own.some((folder) => folder.startsWith(`${path}/`))) noteInLedger(ledger, { kind: "cgroup", path });
  }
  const taken = await takeCgroups(place, {}, () => ledger, helper);
  for (const path of taken.made) hosted.madeCgroups.add(path);
  return taken;
}

/**
 * Takes from a sandbox that goes on what a member had in it: the container, and what the guest was shown for it. A guest that does not answer is ended, with all
 * that is in it: nothing of the member could be given back otherwise. Throws `host`.
 */
export async function withdraw(
  { sandbox }: HostedSandbox,
  container: Container | undefined,
  shown: readonly ShownPath[],
  deadlineMs: number,
): Promise<void> {
  if (container !== undefined && !(await container.unmount(deadlineMs))) {
    return sandbox.abort(`the guest did not give back a container within ${deadlineMs} ms`);
  }
  for (const { target } of shown) await sandbox.unmount(target);
}
