/**
 * The keeper of a template's zygote: makes it, proves it by a copy that answers, and ends it when nobody has used the template for a while.
 *
 *     claimed ── a clone of the template ── goes the way of a container ── stands still ── sealed ── a copy answers ── published ── idle ── gone
 */
import { spawn } from "node:child_process";
import { once } from "node:events";
import { readFileSync, rmSync, writeFileSync } from "node:fs";
import { constants, setPriority } from "node:os";
import { dirname, join } from "node:path";
import { text } from "node:stream/consumers";
import { HuskError } from "../errors.ts";
import { findHierarchies, joinCgroups } from "../host/cgroups.ts";
import { FolderWatch } from "../host/folder-watch.ts";
import { identify } from "../host/process-identity.ts";
import { guestHostname } from "../sandbox/plan-vm.ts";
import { Sandbox } from "../sandbox/sandbox.ts";
import { copiesZygote, memoryPath, type SandboxSpec } from "../sandbox/sandbox-plan.ts";
import { keeperLog, type ZygoteOrder } from "../sandbox/start-zygote.ts";
import type { ImageDisk } from "../storage/container-storage.ts";
import { sum } from "../template/making.ts";
import { type Template, TemplateStore } from "../template/store.ts";
import { claimZygote, publishZygote, type Zygote, zygoteFolder } from "../template/zygote.ts";
import { imageKinds, makeImageBundle, makeRehearsalBundle, rehearsalDisk, rehearse } from "./rehearsal.ts";
import { keeping, Standby, standbyFiles, standbyKinds } from "./standby.ts";

/** How often the whole way is gone: the second time is as fast as the tenth. */
const rehearsals = 2;

/** It gives way to everybody else, and nobody waits for it. */
const patienceMs = 5 * 60_000;

/** How often is looked whether anybody still uses the template, in milliseconds. */
const lookEveryMs = 5_000;

/** Keeps the zygote until nobody uses it any more, or `signal` aborts; tells `complain` what went wrong with what stands by. Throws what kept it from being made. */
export async function keepZygote(
  { template: { key, folder }, idleMs, machine }: ZygoteOrder,
  signal: AbortSignal,
  complain: (message: string) => void,
): Promise<void> {
  const store = new TemplateStore(dirname(folder));
  const template = store.find(key);
  if (template === undefined || !claimZygote(template)) return;
  const own = zygoteFolder(template);
  await giveWay();
  const folderBundle = join(own, "rehearsal");
  makeRehearsalBundle(folderBundle, machine.programs.helper);
  const images: Play[] = [];
  for (const kind of imageKinds) {
    const bundle = join(own, `rehearsal-${kind}`);
    if (await makeImageBundle(bundle, machine.programs.helper, kind)) images.push({ bundle, disk: rehearsalDisk(bundle, kind) });
  }
  const spec: SandboxSpec = {
    ...machine,
    id: "zygote",
    hostname: guestHostname,
    channel: "serial",
    template,
    zygoteSocket: join(own, "zygote.sock"),
    vhostNet: false,
    netns: null,
    cgroups: [],
    shares: true,
    mounts: [],
    disks: [],
    remains: [],
    agentSocket: join(own, "agent.sock"),
    consoleLog: join(own, "console.log"),
    deadlines: { bootMs: patienceMs, callMs: patienceMs },
  };
  const kept = keeping({ template, helper: machine.programs.helper, warn: complain });
  const standbys = standbyKinds.map((kind) => new Standby(kind, kept));
  const sandbox = launch(spec);
  try {
    const died = sandbox.died.then((reason) => Promise.reject(new HuskError("vmm", reason)));
    const stopped = once(signal, "abort").then(() => undefined);
    died.catch(() => {}); // whoever awaits it gets it
    const qemu = await Promise.race([make(sandbox, spec, template, [{ bundle: folderBundle }, ...images]), died, stopped]);
    if (qemu !== undefined) await Promise.race([idle(store, template, { qemu, idleMs, standbys, signal }), died]);
    rmSync(keeperLog(template), { force: true });
  } finally {
    await Promise.all(standbys.map((standby) => standby.end()));
    await sandbox.close(0);
    rmSync(own, { recursive: true, force: true });
  }
}

function launch(spec: SandboxSpec): Sandbox {
  const fellBack = (message: string): never => {
    throw new HuskError("vmm", message); // a machine that is no clone, or no copy, is of no use here
  };
  return Sandbox.launch(spec, { mark: () => {}, fellBack });
}

/** What is rehearsed: a bundle, and the disk that it is on; the first has folders. */
interface Play {
  readonly bundle: string;
  readonly disk?: ImageDisk;
}

/** Resolves to the PID of QEMU. */
async function make(sandbox: Sandbox, spec: SandboxSpec, template: Template, plays: readonly Play[]): Promise<number> {
  const own = zygoteFolder(template);
  const { helper } = spec.programs;
  await sandbox.connect();
  for (const { bundle, disk } of plays) {
    const work = (): Promise<void> => rehearse(sandbox, bundle, { vmSection: false, annotations: [] }, rehearsals);
    await (disk === undefined ? work() : sandbox.withDisk(disk, work));
    rmSync(bundle, { recursive: true });
  }
  const { pid, ...known } = await sandbox.standStill();
  const socket = join(own, "zygote.sock");
  await seal(helper, socket);
  const process = identify(pid);
  if (process === undefined) throw new HuskError("vmm", "QEMU has ended");
  const memory = memoryPath(pid);
  const zygote = { process, socket, memory, sum: await sum(helper, memory), ...known };
  await prove(spec, zygote, own);
  publishZygote(template, zygote);
  return pid;
}

/** What has answered can be trusted to answer again. */
async function prove(spec: SandboxSpec, zygote: Zygote, own: string): Promise<void> {
  const copy = launch({
    ...spec,
    zygoteSocket: undefined,
    zygote,
    disks: [],
    agentSocket: join(own, "proof.sock"),
    consoleLog: join(own, "proof.log"),
  });
  try {
    await copy.connect();
    if (!copiesZygote(copy.spec)) throw new HuskError("internal", "the proof is no copy");
  } finally {
    await copy.close(0);
    for (const name of ["proof.sock", "proof.log"]) rmSync(join(own, name), { force: true });
  }
}

/** Has nothing written to its memory any more. */
async function seal(helper: string, socket: string): Promise<void> {
  const child = spawn(helper, ["template", "seal", "--socket", socket], { stdio: ["ignore", "ignore", "pipe"] });
  const [said, [code]] = await Promise.all([text(child.stderr), once(child, "exit")]);
  if (code !== 0) throw new HuskError("vmm", "the zygote's memory could not be sealed", { cause: said });
}

interface Idling {
  /** QEMU's PID. */
  readonly qemu: number;
  readonly idleMs: number;
  readonly standbys: readonly Standby[];
  readonly signal: AbortSignal;
}

/**
 * Resolves once nobody has used the template for `idleMs`, or it is gone, and no copy lives: its pages are the copies' as well. As long as the template is
 * used, a sandbox of it stands by for each kind of containers for which one is wanted.
 */
async function idle(store: TemplateStore, template: Template, { qemu, idleMs, standbys, signal }: Idling): Promise<void> {
  using orders = new FolderWatch(zygoteFolder(template), standbyFiles);
  // On a busy host the making may have taken longer than that: what has just been made is there for the next one to use.
  const made = Date.now();
  while (!signal.aborted && store.usedAt(template) > 0) {
    const isUsed = Date.now() - Math.max(made, store.usedAt(template)) < idleMs;
    await Promise.all(standbys.map((standby) => (isUsed ? standby.begin() : standby.end())));
    if (!isUsed && readFileSync(`/proc/${qemu}/task/${qemu}/children`, "utf8") === "") return;
    await orders.next(Math.min(lookEveryMs, idleMs), signal);
  }
}

/** Out of the cgroup of whoever has started it, which may have to go; and behind others who have something to do. */
async function giveWay(): Promise<void> {
  // Not the last of all: on a host that is never idle, it would never be done.
  const priority = constants.priority.PRIORITY_BELOW_NORMAL;
  setPriority(priority);
  try {
    // The scheduler weighs sessions first, where it groups by them (sched(7), autogroup).
    writeFileSync("/proc/self/autogroup", String(priority));
  } catch {
    // It does not.
  }
  try {
    await joinCgroups(
      findHierarchies(readFileSync("/proc/self/mountinfo", "utf8")).map(({ mountPoint }) => mountPoint),
      [process.pid],
    );
  } catch {
    // A root in which no process may be: it stays where it is.
  }
}
