/** What a virtual machine is made of, in words that no hypervisor owns. */

export type Accelerator = "kvm" | "tcg";

/** A guest: a kernel, an initramfs, and what they are called. */
export interface GuestImage {
  readonly flavour: string;
  readonly kernel: string;
  readonly initramfs: string;
}

/** A host folder served to the guest by a vhost-user file system daemon listening on `socket` (a path as the hypervisor sees it). */
export interface SharedFolder {
  readonly tag: string;
  readonly socket: string;
}

/** A boot; `parks`: of a template, whose guest lets go of its folder's device and its first disk before it is saved. */
interface Boot {
  readonly kind: "boot";
  readonly image: GuestImage;
  readonly parks?: true;
}

/**
 * Where a machine's life begins. One that is restored has been booted before, as the template's: it waits, paused, for the template's state, and
 * its folder and disks are plugged in after that, into its device ports. One that is resumed goes on as the machine of a checkpoint, whose disks were in use.
 */
export type Origin = Boot | { readonly kind: "restore" } | { readonly kind: "resume" };

/**
 * The guest's RAM, in a file that the hypervisor inherits. A shared folder needs RAM that its daemon can map: over private RAM the mount succeeds and the
 * first access hangs, so the pair cannot be written down.
 */
export type Memory =
  /** The machine's own: a booted one's, a template's in the making, the copy of one, or a checkpoint's. Daemons can map it. */
  | { readonly kind: "own"; readonly bytes: number; readonly descriptor: number; readonly folders: readonly SharedFolder[] }
  /** A template's, which all of its clones have, mapped privately: nobody else sees what one of them writes. Nobody can change the file. */
  | { readonly kind: "template"; readonly bytes: number; readonly descriptor: number };

/** A raw block image that the hypervisor inherits, open, as a descriptor; the guest knows the disk by its serial. */
export interface Disk {
  readonly serial: string;
  readonly descriptor: number;
  /** Whether the descriptor is of a block device, and not of a regular file. */
  readonly isDevice: boolean;
  readonly readonly: boolean;
}

/** How the guest's agent is reached. Either way the host dials a unix socket. */
export type AgentChannel =
  /** virtio-serial; `descriptor`: the listening unix socket that the hypervisor inherits. */
  | { readonly kind: "serial"; readonly descriptor: number }
  /** vsock; the guest dials the host's `port`, where a relay listens. */
  | { readonly kind: "vsock"; readonly cid: number; readonly port: number };

export interface MachineSize {
  readonly vcpus: number;
  readonly memoryBytes: number;
}

export interface Machine {
  readonly accelerator: Accelerator;
  readonly vcpus: number;
  readonly memory: Memory;
  /** How far it can grow while it runs; what it has from the start where it cannot. */
  readonly limits: MachineSize;
  readonly origin: Origin;
  readonly channel: AgentChannel;
  readonly disks: readonly Disk[];
  /** How many network devices may be plugged in while it runs. */
  readonly networkPorts: number;
  /** How many ports there are for its folder and its disks; none where they are beside the ports, in a machine out of which none is ever taken. */
  readonly devicePorts: number;
  /** Of a zygote: the descriptor of something that can be read and written, in whose place its copies have their disks. */
  readonly diskStandIn?: number;
  /** Descriptors of socket pairs that the hypervisor inherits. */
  readonly controlDescriptor: number;
  readonly consoleDescriptor: number;
  /** Likewise, of a second way to control it, by which it can be given descriptors while it runs. */
  readonly monitorDescriptor?: number;
  /** Bytes of the cache of translated code under TCG. */
  readonly translationBufferBytes: number;
  /** Words added to the kernel's command line. */
  readonly kernelParameters: readonly string[];
}

/** The name of the virtio-serial port that the agent opens. */
export const agentPortName = "husk.agent";

/** The id of that port in the hypervisor's own words. */
export const agentPortId = "agent";
