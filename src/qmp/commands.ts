/**
 * The commands that husk uses: their arguments and what they return. QEMU's qapi/*.json is the specification. Arguments that differ by
 * driver (device_add and its like) are open records; enumerations in answers are left open (`string`), since newer QEMUs add to them.
 */
import type { QmpVersion } from "./message.ts";

type None = Readonly<Record<never, never>>;
type Open = Readonly<Record<string, unknown>>;

interface Command<A extends object, R> {
  readonly arguments: A;
  readonly returns: R;
}

export interface StatusInfo {
  readonly running: boolean;
  /** "prelaunch", "inmigrate", "running", "paused", "shutdown", "guest-panicked", "io-error", "internal-error", ... */
  readonly status: string;
}

export interface CpuInfo {
  readonly "cpu-index": number;
  readonly "qom-path": string;
  /** The thread's id as QEMU sees it, in its own PID namespace. */
  readonly "thread-id": number;
}

/** A processor that there is (with a `qom-path`) or could be: `props` and `type` are what device_add wants to hear. */
export interface HotpluggableCpu {
  readonly type: string;
  readonly props: Open;
  readonly "qom-path"?: string;
}

export interface ChardevInfo {
  readonly label: string;
  readonly filename: string;
  readonly "frontend-open": boolean;
}

export interface MemoryDeviceInfo {
  /** "dimm", "nvdimm", "virtio-pmem", "virtio-mem", ... */
  readonly type: string;
  readonly data: Open;
}

export interface MemorySizeSummary {
  readonly "base-memory": number;
  readonly "plugged-memory"?: number;
}

export interface BlockInfo {
  readonly device: string;
  readonly qdev?: string;
  readonly type: string;
  readonly removable: boolean;
  readonly locked: boolean;
  readonly "io-status"?: string;
  readonly inserted?: { readonly "node-name"?: string; readonly drv: string; readonly ro: boolean; readonly file: string };
}

export interface PciDevice {
  readonly bus: number;
  readonly slot: number;
  readonly function: number;
  readonly qdev_id: string;
  readonly class_info: { readonly class: number; readonly desc?: string };
  readonly id: { readonly vendor: number; readonly device: number };
  readonly pci_bridge?: { readonly bus: Open; readonly devices?: readonly PciDevice[] };
}

export interface PciBus {
  readonly bus: number;
  readonly devices: readonly PciDevice[];
}

export interface MigrationInfo {
  /** Absent before the first migration; "completed", "failed", ... */
  readonly status?: string;
  readonly "total-time"?: number;
  readonly downtime?: number;
  readonly "error-desc"?: string;
  readonly ram?: { readonly transferred: number; readonly remaining: number; readonly total: number };
}

export interface FdsetInfo {
  readonly "fdset-id": number;
  readonly fds: readonly { readonly fd: number; readonly opaque?: string }[];
}

export interface ObjectPropertyInfo {
  readonly name: string;
  readonly type: string;
}

export interface BlockdevAdd extends Open {
  readonly driver: string;
  readonly "node-name": string;
}

export interface QmpCommands {
  readonly "query-status": Command<None, StatusInfo>;
  readonly "query-version": Command<None, QmpVersion>;
  readonly "query-kvm": Command<None, { readonly enabled: boolean; readonly present: boolean }>;
  readonly "query-commands": Command<None, readonly { readonly name: string }[]>;
  readonly "query-cpus-fast": Command<None, readonly CpuInfo[]>;
  readonly "query-hotpluggable-cpus": Command<None, readonly HotpluggableCpu[]>;
  readonly "query-chardev": Command<None, readonly ChardevInfo[]>;
  readonly "query-memory-devices": Command<None, readonly MemoryDeviceInfo[]>;
  readonly "query-memory-size-summary": Command<None, MemorySizeSummary>;
  readonly "query-balloon": Command<None, { readonly actual: number }>;
  readonly "query-block": Command<None, readonly BlockInfo[]>;
  readonly "query-pci": Command<None, readonly PciBus[]>;
  readonly "query-fdsets": Command<None, readonly FdsetInfo[]>;
  readonly "query-migrate": Command<None, MigrationInfo>;

  readonly qmp_capabilities: Command<{ readonly enable?: readonly string[] }, void>;
  readonly cont: Command<None, void>;
  readonly stop: Command<None, void>;
  /** QEMU answers, and then ends. */
  readonly quit: Command<None, void>;
  readonly system_powerdown: Command<None, void>;
  readonly system_reset: Command<None, void>;
  readonly "inject-nmi": Command<None, void>;
  readonly balloon: Command<{ readonly value: number }, void>;

  readonly device_add: Command<Open & { readonly driver: string; readonly id?: string; readonly bus?: string }, void>;
  /** Asks the guest to let go; the device is gone with the event DEVICE_DELETED, see `QmpClient.executeUntil`. */
  readonly device_del: Command<{ readonly id: string }, void>;
  readonly netdev_add: Command<Open & { readonly type: string; readonly id: string }, void>;
  readonly netdev_del: Command<{ readonly id: string }, void>;
  readonly "chardev-add": Command<
    { readonly id: string; readonly backend: { readonly type: string; readonly data: Open } },
    { readonly pty?: string }
  >;
  readonly "chardev-remove": Command<{ readonly id: string }, void>;
  readonly "object-add": Command<Open & { readonly "qom-type": string; readonly id: string }, void>;
  readonly "object-del": Command<{ readonly id: string }, void>;
  readonly "blockdev-add": Command<BlockdevAdd, void>;
  readonly "blockdev-del": Command<{ readonly "node-name": string }, void>;
  readonly set_link: Command<{ readonly name: string; readonly up: boolean }, void>;

  readonly "qom-get": Command<{ readonly path: string; readonly property: string }, unknown>;
  readonly "qom-set": Command<{ readonly path: string; readonly property: string; readonly value: unknown }, void>;
  readonly "qom-list": Command<{ readonly path: string }, readonly ObjectPropertyInfo[]>;

  readonly migrate: Command<{ readonly uri: string; readonly detach?: boolean }, void>;
  readonly "migrate-incoming": Command<{ readonly uri: string }, void>;
  readonly migrate_cancel: Command<None, void>;
  readonly "migrate-set-capabilities": Command<
    { readonly capabilities: readonly { readonly capability: string; readonly state: boolean }[] },
    void
  >;
  readonly "migrate-set-parameters": Command<Open, void>;

  /** Takes the descriptor that comes beside the command by SCM_RIGHTS; so does add-fd. */
  readonly getfd: Command<{ readonly fdname: string }, void>;
  readonly closefd: Command<{ readonly fdname: string }, void>;
  readonly "add-fd": Command<
    { readonly "fdset-id"?: number; readonly opaque?: string },
    { readonly "fdset-id": number; readonly fd: number }
  >;
  readonly "remove-fd": Command<{ readonly "fdset-id": number; readonly fd?: number }, void>;

  /** For people and tests: what it prints is no interface. */
  readonly "human-monitor-command": Command<{ readonly "command-line": string }, string>;
}

export type QmpCommandName = keyof QmpCommands;
export type QmpArguments<C extends QmpCommandName> = QmpCommands[C]["arguments"];
export type QmpReturns<C extends QmpCommandName> = QmpCommands[C]["returns"];
