/**
 * Takes a checkpoint of a whole sandbox: the machine's memory, its devices' state, and what tells that its disks are what they were. Nothing of the guest is
 * looked into, so all of it goes on: processes, open files, timers, what is in memory alone.
 *
 *     guest: containers stand still, outputs are here ── machine paused, shared folder out ── state, memory, disks written ── checkpoint in its place
 *                                                                                                       ├── shared folder back, goes on ──┤
 *                                                                                                       └── ends
 *
 * Whatever fails up to the last step, the machine goes on.
 */
import { once } from "node:events";
import { chownSync, closeSync, openSync, rmSync } from "node:fs";
import { createServer, type Socket } from "node:net";
import { newNonce } from "../agent/dial.ts";
import { demandCopyable, type HostDisk, sizeOf, witnessOf } from "../checkpoint/disks.ts";
import { maxStateBytes, NewImage } from "../checkpoint/image.ts";
import { type Manifest, newManifest, type Restorer, type SavedDisk } from "../checkpoint/manifest.ts";
import { residentBytes, type Saved, saveMemory, savePages } from "../checkpoint/pages.ts";
import { receive } from "../checkpoint/received.ts";
import { HuskError } from "../errors.ts";
import { withDeadline } from "../host/deadline.ts";
import { processorDigest } from "../template/shape.ts";
import { version } from "../version.ts";
import { qemuArguments } from "../vmm/qemu/command-line.ts";
import type { QemuVm } from "../vmm/qemu/qemu-vm.ts";
import type { ContainerSpec } from "./container.ts";
import { FolderExchange } from "./folder-exchange.ts";
import type { Sandbox } from "./sandbox.ts";
import { planResumed, type SandboxSpec } from "./sandbox-plan.ts";
import type { SharedSandbox } from "./shared-sandbox.ts";

export interface CheckpointOptions {
  /** Absolute. */
  readonly folder: string;
  /** Whether the container goes on; else it ends, and the checkpoint is all that is left of it. */
  readonly leaveRunning: boolean;
}

/** What is checkpointed. */
export interface Checkpointed {
  readonly sandbox: SharedSandbox;
  readonly container: ContainerSpec;
  readonly paused: boolean;
}

/** What a restore has in common with the checkpoint of this sandbox. */
export function restorerOf(spec: SandboxSpec): Restorer {
  const { accelerator } = spec;
  // How much memory translated code may take is nothing that the guest sees.
  const machine = { ...planResumed(spec), translationBufferBytes: 0 };
  return { husk: version, accelerator, processor: processorDigest(accelerator), arguments: qemuArguments(machine) };
}

/** Throws `unsupported`, with the reason, where a sandbox cannot be checkpointed at all. */
export function demandSaveable({ shares, channel, programs }: SandboxSpec): void {
  if (shares && programs.virtiofsdKind !== "husk") {
    throw new HuskError("unsupported", `a container with folders or files of the host cannot be checkpointed with ${programs.virtiofsd}`, {
      hint: 'set vm.virtiofsd = "auto": husk has a virtiofsd that tells which files are open',
    });
  }
  if (channel === "vsock") {
    throw new HuskError("unsupported", "a virtual machine whose agent is reached by vsock cannot be checkpointed", {
      hint: 'set vm.channel = "serial"',
    });
  }
}

/**
 * Takes the checkpoint. With `leaveRunning` the containers go on when this resolves; without, the machine is paused for ever, and the caller ends it. Answers
 * what is worth a line in the log. Throws, with everything going on as before.
 */
export async function takeCheckpoint(what: Checkpointed, options: CheckpointOptions): Promise<readonly string[]> {
  if (what.sandbox.isShared) {
    throw new HuskError("unsupported", "a container of a pod cannot be checkpointed: others are in its virtual machine");
  }
  const hosted = await what.sandbox.hosted;
  const { sandbox } = hosted;
  const { spec, agent } = sandbox;
  demandSaveable(spec);
  const { devicePorts } = planResumed(spec);
  if (spec.shares && devicePorts === 0) {
    throw new HuskError(
      "unsupported",
      "a virtual machine that was booted, and not cloned from a template, cannot be checkpointed with a shared folder",
      {
        hint: "see template.enabled",
      },
    );
  }
  if (options.leaveRunning) demandCopyable(spec.disks);
  if (hosted.limits.hasGrown) {
    throw new HuskError("unsupported", "a virtual machine into which processors or memory were plugged later cannot be checkpointed");
  }
  const { links } = hosted;
  const { bootMs } = spec.deadlines;
  const resident = await residentBytes(spec.programs.helper, sandbox.memory);
  const nonce = newNonce();
  // From here on nobody else takes one.
  const { outputs, outsideConnections } = await agent.call("prepareCheckpoint", { residentBytes: resident, nonce }, bootMs);
  try {
    await sandbox.outputs.caughtUp(outputs, bootMs);
    await saveTo(options, sandbox, what, { links, nonce });
  } catch (error) {
    await agent.call("finishCheckpoint", {}).catch(() => {}); // a guest that does not answer has a trouble that is told of elsewhere
    throw error;
  }
  if (options.leaveRunning) await agent.call("finishCheckpoint", {});
  return outsideConnections === 0
    ? []
    : [`${outsideConnections} TCP connections to the outside are not carried by the checkpoint: their other ends know nothing of it`];
}

/** How the guest is reached when it goes on. */
type Reach = Pick<Manifest, "links" | "nonce">;

/** Where it fails, nothing is left of it. */
async function saveTo({ folder, leaveRunning }: CheckpointOptions, sandbox: Sandbox, what: Checkpointed, reach: Reach): Promise<void> {
  const image = new NewImage(folder);
  try {
    await save(sandbox, what, image, reach, leaveRunning);
  } catch (error) {
    image.abandon();
    throw error;
  }
}

/** Everything that is done while the machine is paused. Where it fails, or the machine is to go on, it goes on. */
async function save(
  sandbox: Sandbox,
  { container, paused }: Checkpointed,
  image: NewImage,
  reach: Reach,
  leaveRunning: boolean,
): Promise<void> {
  const { spec, vm } = sandbox;
  const exchange = new FolderExchange(sandbox);
  const goOn = async (): Promise<void> => {
    await exchange.giveBack();
    await vm.resume();
  };
  try {
    await vm.pause();
    const folder = spec.shares ? await exchange.take(image) : undefined;
    const sha256 = await saveState(sandbox, vm, image);
    const memory = await writeMemory(sandbox, image, leaveRunning);
    const disks = await saveDisks(spec, image, leaveRunning);
    const { vcpus, limits, networkPorts, memoryBytes } = spec;
    image.publish(
      newManifest({
        ...restorerOf(spec),
        qemu: vm.version,
        vcpus,
        limits,
        networkPorts,
        devicePorts: planResumed(spec).devicePorts,
        ...reach,
        disks,
        container: {
          id: container.id,
          guestId: container.guestId,
          terminal: container.terminal,
          paused,
          spec: container.specJson,
        },
        memory: { file: image.name("memory"), bytes: memoryBytes, packedBytes: memory.writtenBytes, sum: memory.sum },
        state: { file: image.name("state"), sha256 },
        ...(folder === undefined ? {} : { folder }),
      }),
    );
  } catch (error) {
    await goOn().catch(() => {}); // a machine that does not is dead, which is told of elsewhere
    throw error;
  }
  if (leaveRunning) await goOn();
}

/** QEMU's own part, of the paused machine: it can write it to a socket and nowhere else. Answers the SHA-256. */
async function saveState(sandbox: Sandbox, vm: QemuVm, image: NewImage): Promise<string> {
  const { bootMs } = sandbox.spec.deadlines;
  const inTree = `/run/${image.name("state")}`;
  const path = await sandbox.pathInTree(inTree);
  const file = image.create("state");
  const server = createServer();
  try {
    const bound = { bytes: maxStateBytes, exceeded: () => new Error(`it has more than ${maxStateBytes} bytes`) };
    const received = once(server, "connection").then(([connection]) => receive(connection as Socket, file, bound));
    received.catch(() => {}); // QEMU's own failure is the better story
    server.listen({ path });
    await once(server, "listening");
    chownSync(path, sandbox.user, sandbox.user);
    await vm.save(inTree, bootMs);
    return await withDeadline(received, bootMs, "the machine's state");
  } catch (cause) {
    throw new HuskError("vmm", "the machine's state could not be saved", { cause });
  } finally {
    server.close();
    rmSync(path, { force: true });
    closeSync(file);
  }
}

/** The memory of the paused machine. */
async function writeMemory({ spec, memory }: Sandbox, image: NewImage, giveBack: boolean): Promise<Saved> {
  const file = image.create("memory");
  try {
    return await saveMemory(spec.programs.helper, memory, file, giveBack);
  } finally {
    closeSync(file);
  }
}

async function saveDisks({ disks, programs }: SandboxSpec, image: NewImage, leaveRunning: boolean): Promise<SavedDisk[]> {
  const saved: SavedDisk[] = [];
  for (const [index, disk] of disks.entries()) {
    const { serial, readonly, isDevice } = disk;
    const description = { serial, readonly, isDevice, bytes: sizeOf(disk), witness: witnessOf(disk) };
    saved.push(
      leaveRunning && !readonly ? { ...description, copy: await copyDisk(programs.helper, disk, image, `disk${index}`) } : description,
    );
  }
  return saved;
}

async function copyDisk(helper: string, disk: HostDisk, image: NewImage, kind: string): Promise<NonNullable<SavedDisk["copy"]>> {
  const [from, to] = [openSync(disk.path, "r"), image.create(kind)];
  try {
    const { sum } = await savePages(helper, from, to, []);
    return { file: image.name(kind), sum };
  } finally {
    closeSync(from);
    closeSync(to);
  }
}
