/**
 * From a bundle, the configuration and the flags to what the supervisor is to make. Everything that can be refused is refused here, before anything is
 * taken from the host.
 */
import { accessSync, closeSync, openSync, readFileSync } from "node:fs";
import { availableParallelism, totalmem, userInfo } from "node:os";
import { dirname, join, resolve } from "node:path";
import type { Config } from "../config/config.ts";
import { HuskError } from "../errors.ts";
import { findHierarchies } from "../host/cgroups.ts";
import { identify } from "../host/process-identity.ts";
import { type Bundle, inspectSources, loadBundle } from "../oci/bundle.ts";
import { guestSpec, type Share } from "../oci/guest-spec.ts";
import { stringifyJson } from "../oci/json.ts";
import { vmSize } from "../oci/resources.ts";
import { judge, refuseUnsupported } from "../oci/support.ts";
import type { WindowSize } from "../sandbox/stand-in.ts";
import type { SupervisorInput } from "../sandbox/supervisor.ts";
import { guestPath, planBind, planRoot } from "../storage/container-storage.ts";
import { findRootFilesystem } from "../storage/root-filesystem.ts";
import { type AcceleratorChoice, chooseAccelerator, probeAccelerator } from "../vmm/accelerator.ts";
import { findGuestImage, findQemu, findVirtiofsd, guestImageFolders } from "../vmm/host-programs.ts";
import type { GuestImage } from "../vmm/machine.ts";
import { identifyVirtiofsd } from "../vmm/virtiofsd.ts";
import { helperPath, installationFolder } from "./installation.ts";

/** What the command line asks for, apart from the configuration. */
export interface PrepareOptions {
  readonly root: string;
  readonly id: string;
  /** The bundle's folder. */
  readonly bundle: string;
  readonly consoleSocket: string | null;
  /** Whether the caller stays until the container ends. */
  readonly foreground: boolean;
  /** Whether a container in the foreground stays in the records after its end. */
  readonly keep: boolean;
  /** The caller's terminal, where there is one. */
  readonly size: WindowSize | null;
}

export interface Prepared {
  readonly input: SupervisorInput;
  readonly accelerator: AcceleratorChoice;
  /** What is worth a line in the log: fields that the VM's boundary subsumes, properties that the spec does not know. */
  readonly notes: readonly string[];
}

/** Reads, checks and plans. Throws `invalid-argument`, `unsupported` or `host`. */
export async function prepare(options: PrepareOptions, config: Config): Promise<Prepared> {
  const bundle = await loadBundle(options.bundle);
  const { spec } = bundle;
  const sources = await inspectSources(spec, bundle.path);
  const notes = refuseUnsupported(
    judge(spec, { bundle: bundle.path, sources, allowVmSection: config.allow.vmSection, allowedAnnotations: config.allow.annotations }),
  );
  const terminal = spec.process.terminal === true;
  if (terminal && !options.foreground && options.consoleSocket === null) {
    throw new HuskError(
      "invalid-argument",
      "config.json: process.terminal: a container in the background needs --console-socket for its terminal",
    );
  }
  const root = planRoot(options.id, findRootFilesystem(bundle.rootfs), spec.root.readonly === true);
  const planned = (share: Share) => planBind(options.id, share.index, share.hostPath, share.readonly);
  const guest = guestSpec(spec, {
    bundle: bundle.path,
    sources,
    rootPath: root.storage.mountPoint,
    guestPath: (share) => guestPath(planned(share)),
  });
  const size = vmSize(spec, {
    vcpus: config.vm.vcpus,
    memoryBytes: config.vm.memory,
    guestOverheadBytes: config.vm.memoryOverhead,
    hostOverheadBytes: config.vm.hostOverhead,
    hostCpus: availableParallelism(),
    hostMemoryBytes: totalmem(),
  });
  const accelerator = chooseAccelerator(config.vm.accel, config.vm.requireKvm, probeAccelerator(readText, tryOpen));
  const consoleSize = spec.process.consoleSize;
  return {
    accelerator,
    notes: [...notes, ...bundle.unknown.map((path) => `config.json: ${path} is no property of the runtime spec and was ignored`)],
    input: {
      root: options.root,
      record: firstRecord(options, bundle),
      container: {
        id: options.id,
        specJson: stringifyJson(guest.spec),
        rootfs: root.storage,
        storages: [],
        terminal,
        consoleSize: consoleSize === undefined ? options.size : { rows: consoleSize.height, columns: consoleSize.width },
      },
      sandbox: {
        id: options.id,
        programs: await findPrograms(config, spec.vm?.hypervisor?.path),
        image: findImage(config, spec.vm?.kernel?.path),
        accelerator: accelerator.accelerator,
        channel: chooseChannel(config.vm.channel),
        vhostNet: canAccess("/dev/vhost-net"),
        vcpus: size.vcpus,
        memoryBytes: size.memoryBytes,
        translationBufferBytes: config.vm.tcgTbSize,
        networkPorts: config.vm.networkPorts,
        guestConsoleBytes: config.log.guestConsoleBytes,
        kernelParameters: spec.vm?.kernel?.parameters ?? [],
        netns: namespacePath(bundle),
        mounts: [...root.shown, ...guest.shares.map(planned)],
        disks: root.disks,
        // A container in the foreground is nobody's to delete once its supervisor was killed; any other is left as stopped, for its owner.
        remains: options.foreground && !options.keep ? deletion(options) : [],
        deadlines: { bootMs: config.deadlines.bootMs, callMs: config.deadlines.callMs },
      },
      standInRootfs: root.shown.length > 0 ? bundle.rootfs : null,
      consoleSocket: options.consoleSocket,
      hierarchies: findHierarchies(readText("/proc/self/mountinfo")),
      cgroupsPath: resolve("/", spec.linux?.cgroupsPath ?? `husk-${options.id}`),
      cgroupLimits: size.host,
      hooks: spec.hooks ?? {},
      stopMs: config.deadlines.stopMs,
    },
  };
}

function firstRecord(options: PrepareOptions, bundle: Bundle): SupervisorInput["record"] {
  const { spec } = bundle;
  return {
    version: 1,
    ociVersion: spec.ociVersion,
    id: options.id,
    status: "creating",
    pid: 0,
    pidStart: 0,
    supervisor: identify(process.pid) ?? null,
    bundle: bundle.path,
    rootfs: bundle.rootfs,
    created: new Date().toISOString(),
    owner: userInfo().username,
    annotations: spec.annotations ?? {},
    terminal: spec.process.terminal === true,
    foreground: options.foreground && !options.keep,
    poststop: spec.hooks?.poststop ?? [],
  };
}

/** `qemu`: the bundle's own choice, which the administrator has allowed (allow.vm_section). */
async function findPrograms(config: Config, qemu: string | undefined): Promise<SupervisorInput["sandbox"]["programs"]> {
  const helper = helperPath();
  const virtiofsd = findVirtiofsd(config.vm.virtiofsd, dirname(helper), process.env);
  return {
    helper,
    qemu: findQemu(qemu ?? config.vm.qemu, process.env),
    virtiofsd,
    virtiofsdKind: await identifyVirtiofsd(virtiofsd),
  };
}

/** `kernel`: likewise; husk's own initramfs goes with it, since the agent is in it. */
function findImage(config: Config, kernel: string | undefined): GuestImage {
  const image = findGuestImage(config.vm.kernel, guestImageFolders(installationFolder(), process.env));
  return kernel === undefined ? image : { ...image, kernel };
}

/** The command that deletes the container without its supervisor. */
function deletion({ root, id }: PrepareOptions): string[] {
  return [process.execPath, join(installationFolder(), "dist/husk.js"), "--root", root, "delete", "--force", id];
}

/** vsock where the host has it: it is faster, and a VM's own. */
function chooseChannel(requested: Config["vm"]["channel"]): "serial" | "vsock" {
  if (requested !== "auto") return requested;
  return canAccess("/dev/vhost-vsock") ? "vsock" : "serial";
}

/** The network namespace that the bundle names; null: one of its own. A bundle that names none at all was refused before. */
function namespacePath({ spec }: Bundle): string | null {
  const path = spec.linux?.namespaces?.find((namespace) => namespace.type === "network")?.path;
  return path === undefined || path === "" ? null : path;
}

function canAccess(path: string): boolean {
  try {
    accessSync(path);
    return true;
  } catch {
    return false;
  }
}

function readText(path: string): string {
  return readFileSync(path, "utf8");
}

function tryOpen(path: string): void {
  closeSync(openSync(path, "r+"));
}
