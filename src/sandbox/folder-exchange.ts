/**
 * The shared folder of a machine that is checkpointed. QEMU cannot save a machine that has its device, and the guest cannot let go of it: its containers' programs and
 * open files are there. So the device is taken out of the paused machine without the guest's knowledge, and another one is put in its place before anything goes
 * on, whose server knows what this one knew: which files the guest means by which numbers (tools/virtiofsd/hand-over.patch). The guest's agent tells the new
 * device what the kernel has told the old one.
 */
import { once } from "node:events";
import { closeSync, readSync } from "node:fs";
import { connect } from "node:net";
import { maxFolderBytes, type NewImage } from "../checkpoint/image.ts";
import type { SavedFile } from "../checkpoint/manifest.ts";
import { receive } from "../checkpoint/received.ts";
import { explain, HuskError } from "../errors.ts";
import { withDeadline } from "../host/deadline.ts";
import { printable } from "../host/printable.ts";
import { share } from "../template/share.ts";
import { pluggedDevices } from "../vmm/qemu/command-line.ts";
import type { Sandbox } from "./sandbox.ts";
import { planMachine } from "./sandbox-plan.ts";

/** The last byte that a server says: whether what came before is what it knows, or why it cannot be handed over. */
const verdicts = { complete: 0, failed: 1 };

export class FolderExchange {
  readonly #sandbox: Sandbox;
  #isTaken = false;

  constructor(sandbox: Sandbox) {
    this.#sandbox = sandbox;
  }

  /** Takes the folder out of the machine, which is paused, and writes to `image` what its server knows. Throws `unsupported`, `vmm` or `deadline`. */
  async take(image: NewImage): Promise<SavedFile> {
    const { vm, spec } = this.#sandbox;
    const { bootMs } = spec.deadlines;
    const path = await this.#sandbox.pathInTree(share.socket);
    const file = image.create("folder");
    try {
      this.#isTaken = true;
      await vm.takeFolder(bootMs);
      const sha256 = await withDeadline(ask(path, file), bootMs, "what the shared folder's server knows");
      return { file: image.name("folder"), sha256 };
    } finally {
      closeSync(file);
    }
  }

  /** Makes the machine, which is paused, ready to go on. Where that cannot be, its sandbox ends. Throws `vmm`. */
  async giveBack(): Promise<void> {
    if (!this.#isTaken) return;
    const { vm, spec } = this.#sandbox;
    try {
      await vm.giveFolder(share, pluggedDevices(planMachine(spec, 0)));
    } catch (error) {
      await this.#sandbox.abort(`its shared folder could not be given back: ${explain(error)}`);
      throw error;
    }
  }
}

/** Writes what a server knows to the file, and answers its SHA-256. */
async function ask(path: string, file: number): Promise<string> {
  const socket = connect(path);
  await once(socket, "connect");
  let verdict: Buffer = Buffer.alloc(0);
  const known = async function* (): AsyncGenerator<Buffer> {
    for await (const chunk of socket as AsyncIterable<Buffer>) {
      // The last byte is none of it, and comes when it comes.
      yield Buffer.concat([verdict, chunk.subarray(0, -1)]);
      verdict = chunk.subarray(-1);
    }
  };
  const exceeded = (): Error => new HuskError("unsupported", `the shared folder's server knows more than ${maxFolderBytes} bytes of it`);
  const sha256 = await receive(known(), file, { bytes: maxFolderBytes - 1, exceeded });
  if (verdict[0] === verdicts.complete) return sha256;
  if (verdict[0] !== verdicts.failed) throw new HuskError("vmm", "the shared folder's server has not said all that it knows");
  throw new HuskError("unsupported", `the container's files cannot be checkpointed: ${printable(beginning(file))}`);
}

/** A reason is no longer than that. */
const maxReasonBytes = 1024;

function beginning(file: number): string {
  const bytes = Buffer.alloc(maxReasonBytes);
  return bytes.toString("utf8", 0, readSync(file, bytes, 0, bytes.length, 0));
}
