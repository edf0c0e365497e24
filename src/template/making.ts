/**
 * Makes a template: boots its machine until the agent has opened its port, pauses it, keeps it, and proves it by a clone that answers.
 * Everything runs as a sandbox's programs do, so whoever dies, nothing is left but files.
 */
import { spawn } from "node:child_process";
import { randomBytes } from "node:crypto";
import { chmodSync, chownSync, closeSync, openSync, rmSync, truncateSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import type { Readable } from "node:stream";
import { text } from "node:stream/consumers";
import { HuskError } from "../errors.ts";
import type { SandboxPlan } from "../host/sandbox-plan.ts";
import { firstExtraDescriptor, SandboxProcess } from "../host/sandbox-process.ts";
import { clockParameters } from "../vmm/clock-rate.ts";
import { hypervisorTree, hypervisorUser } from "../vmm/confinement.ts";
import { GuestConsole } from "../vmm/guest-console.ts";
import { agentPortId, type Machine } from "../vmm/machine.ts";
import { pluggedDevices } from "../vmm/qemu/command-line.ts";
import { qemuProgram } from "../vmm/qemu/program.ts";
import { QemuVm } from "../vmm/qemu/qemu-vm.ts";
import { copier, copyParts } from "./clone.ts";
import { type TemplateShape, templateMachine } from "./shape.ts";
import { share, shareServer } from "./share.ts";
import { changeTime, hashState, type Manifest, type Template } from "./store.ts";

const descriptors = {
  control: firstExtraDescriptor,
  console: firstExtraDescriptor + 1,
  agent: firstExtraDescriptor + 2,
  memory: firstExtraDescriptor + 3,
  state: firstExtraDescriptor + 4,
  kernel: firstExtraDescriptor + 5,
  initramfs: firstExtraDescriptor + 6,
  receiver: firstExtraDescriptor + 7,
  source: firstExtraDescriptor + 8,
  share: firstExtraDescriptor + 9,
};
const stateSocket = "/run/state.sock";
const consoleBytes = 64 * 1024;

/** Makes the files of a template in the folder `draft`. Throws `vmm`, `guest`, `host` or `deadline`; the folder is the caller's to remove. */
export async function makeTemplate(shape: TemplateShape, draft: string, deadlineMs: number): Promise<Manifest> {
  const [ram, state] = [join(draft, "ram"), join(draft, "state")];
  writeFileSync(ram, "", { mode: 0o600 });
  truncateSync(ram, shape.memoryBytes);
  writeFileSync(state, "", { mode: 0o600 });
  await boot(shape, draft, ram, state, deadlineMs);
  const manifest: Manifest = {
    machine: `${shape.image.flavour} kernel, ${shape.vcpus} vCPU, ${shape.memoryBytes / 1024 / 1024} MiB, ${shape.accelerator}`,
    tenant: shape.tenant,
    createdAt: new Date().toISOString(),
    ramBytes: shape.memoryBytes,
    ramChanged: changeTime(ram),
    ramSum: await sum(shape.programs.helper, ram),
    stateSha256: hashState(state),
  };
  await prove(shape, { key: "", folder: draft, ram, state, manifest }, deadlineMs);
  rmSync(join(draft, "console.log"));
  rmSync(join(draft, "agent.sock"));
  return manifest;
}

/** Boots the machine with its RAM in the file `ram`, and has its state written to the file `state`. */
async function boot(shape: TemplateShape, draft: string, ram: string, state: string, deadlineMs: number): Promise<void> {
  const { control, console, agent, memory, kernel, initramfs, receiver } = descriptors;
  const parameters = await clockParameters(shape.programs.helper, shape.accelerator);
  const booted = { ...shape, kernelParameters: [...shape.kernelParameters, ...parameters] };
  const machine = templateMachine(booted, {
    origin: {
      kind: "boot",
      parks: true,
      image: { ...shape.image, kernel: `/proc/self/fd/${kernel}`, initramfs: `/proc/self/fd/${initramfs}` },
    },
    memory: { kind: "own", bytes: shape.memoryBytes, descriptor: memory, folders: [share] },
    channel: { kind: "serial", descriptor: agent },
    controlDescriptor: control,
    consoleDescriptor: console,
  });
  await using vm = new TemplateVm(shape, draft, (user) => {
    // QEMU opens the RAM's file anew, by the descriptor that it inherits. It runs no tenant's code here, and is gone before anybody uses the template.
    chownSync(ram, user, user);
    return {
      open: [
        { fd: memory, path: ram, write: true },
        { fd: descriptors.state, path: state, write: true },
        { fd: kernel, path: shape.image.kernel, write: false },
        { fd: initramfs, path: shape.image.initramfs, write: false },
      ],
      memory: [],
      processes: [
        {
          name: "receiver",
          argv: [shape.programs.helper, "template", "receive", "--from", String(receiver), "--to", String(descriptors.state)],
          user: "user",
          fds: [descriptors.state],
          socket: stateSocket,
          socketFd: receiver,
        },
        shareServer(shape.programs, descriptors.share),
        qemu(shape, machine, [memory, kernel, initramfs]),
      ],
    };
  });
  await vm.until(async ({ process, qmp }) => {
    const hypervisor = await QemuVm.open(qmp, shape.networkPorts, deadlineMs);
    await hypervisor.portOpened(agentPortId, deadlineMs);
    await hypervisor.ejectKnown();
    await hypervisor.pause();
    await hypervisor.save(stateSocket, deadlineMs);
    const { code } = await process.programEnd("receiver");
    if (code !== 0) throw new HuskError("host", "the machine's state could not be written", { cause: process.stderr.lines(2).join(" | ") });
  });
  await vm[Symbol.asyncDispose]();
  chownSync(ram, 0, 0);
  for (const file of [ram, state]) chmodSync(file, 0o400);
}

/** Clones the template once, and asks the clone. What has answered can be trusted to answer again. */
async function prove(shape: TemplateShape, template: Template, deadlineMs: number): Promise<void> {
  const { control, console, agent, memory, state, source } = descriptors;
  const machine = templateMachine(shape, {
    origin: { kind: "restore" },
    memory: { kind: "own", bytes: shape.memoryBytes, descriptor: memory, folders: [share] },
    channel: { kind: "serial", descriptor: agent },
    controlDescriptor: control,
    consoleDescriptor: console,
  });
  const socket = join(template.folder, "agent.sock");
  rmSync(socket);
  await using vm = new TemplateVm(shape, template.folder, () => {
    const { program, ...parts } = copyParts(template, shape.programs.helper, { source, memory, state });
    return { ...parts, processes: [program, shareServer(shape.programs, descriptors.share), qemu(shape, machine, [memory, state])] };
  });
  await vm.until(async ({ process, qmp }) => {
    const { AgentClient } = await import("../agent/agent-client.ts");
    const hypervisor = await QemuVm.open(qmp, shape.networkPorts, deadlineMs);
    const { code } = await process.programEnd(copier);
    if (code !== 0)
      throw new HuskError("host", "the template's memory could not be copied", { cause: process.stderr.lines(2).join(" | ") });
    await hypervisor.restore(state, pluggedDevices(machine), deadlineMs);
    const client = new AgentClient(socket, deadlineMs);
    try {
      await client.ready(deadlineMs);
      const shares = [{ tag: share.tag, mountPoint: "/run/husk/proof" }];
      await client.call("createSandbox", { sandboxId: "template", hostname: "husk", randomSeed: randomBytes(64), shares });
    } finally {
      client.close();
    }
  });
}

function qemu(shape: TemplateShape, machine: Machine, own: readonly number[]): SandboxPlan["processes"][number] {
  const { control, console, agent } = descriptors;
  return qemuProgram(shape.programs.qemu, machine, [control, console, agent, ...own]);
}

/** What a use of the machine is given. */
interface Running {
  readonly process: SandboxProcess;
  readonly qmp: SandboxProcess["channels"][number];
}

/** A machine in a sandbox without a network or anything of the host's, for as long as it is used. */
class TemplateVm implements AsyncDisposable {
  readonly #process: SandboxProcess;
  readonly #console: GuestConsole;

  constructor(
    { programs, accelerator }: TemplateShape,
    folder: string,
    parts: (user: number) => Pick<SandboxPlan, "open" | "memory" | "processes">,
  ) {
    this.#process = SandboxProcess.start(programs.helper, 2);
    const user = hypervisorUser(this.#process.pid);
    this.#console = new GuestConsole(this.#process.channels[1] as Readable, join(folder, "console.log"), consoleBytes);
    this.#process.launch({
      cgroups: [],
      listen: [{ fd: descriptors.agent, path: join(folder, "agent.sock") }],
      tree: {
        readonly: hypervisorTree(programs.qemu, [programs.virtiofsd, programs.helper]),
        devices: accelerator === "kvm" ? ["kvm"] : [],
      },
      user: { uid: user, gid: user },
      mounts: [],
      remains: [],
      ...parts(user),
    });
  }

  /** Runs `use` to its end, unless the machine ends first. */
  async until(use: (running: Running) => Promise<void>): Promise<void> {
    const [qmp] = this.#process.channels;
    if (qmp === undefined) throw new HuskError("internal", "the sandbox has no QMP channel");
    const ended = this.#process.programEnd("qemu").then(({ code, signal }) => {
      const said = [...this.#process.stderr.lines(4), this.#console.lastWords()].filter(Boolean).join(" | ");
      throw new HuskError("vmm", `QEMU ended with ${signal === undefined ? `status ${code}` : `signal ${signal}`}`, { cause: said });
    });
    await Promise.race([use({ process: this.#process, qmp }), ended]);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#process.kill();
  }
}

/** The sum of a RAM file's pages. */
export async function sum(helper: string, ram: string): Promise<string> {
  const file = openSync(ram, "r");
  try {
    const child = spawn(helper, ["template", "sum", "--from", "3"], { stdio: ["ignore", "pipe", "pipe", file] });
    const ended = new Promise<number | null>((resolve, reject) => {
      child.once("error", reject);
      child.once("exit", resolve);
    });
    const [code, printed, complaint] = await Promise.all([ended, text(child.stdout as Readable), text(child.stderr as Readable)]);
    if (code !== 0) throw new HuskError("host", "the template's memory could not be read", { cause: complaint });
    return printed.trim();
  } finally {
    closeSync(file);
  }
}
