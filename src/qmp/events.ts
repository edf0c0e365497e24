/**
 * The events that husk knows, and the readers of their data. QEMU's qapi/*.json is the specification; enumerations are left open
 * (`string`), since newer QEMUs add to them. Events that are not listed reach `QmpClient.onAny` alone.
 */
import { anything, boolean, integer, object, optional, type Reader, string } from "../narrow.ts";

type Empty = Readonly<Record<never, never>>;

export interface QmpEvents {
  /** The machine stops: "guest-shutdown", "guest-reset", "guest-panic", "host-signal", "host-qmp-quit", ... */
  readonly SHUTDOWN: { readonly guest: boolean; readonly reason: string };
  /** An ACPI power-down request was delivered to the guest. */
  readonly POWERDOWN: Empty;
  readonly RESET: { readonly guest: boolean; readonly reason: string };
  readonly STOP: Empty;
  readonly RESUME: Empty;
  readonly SUSPEND: Empty;
  readonly WAKEUP: Empty;
  readonly WATCHDOG: { readonly action: string };
  /** The guest opened or closed a virtio-serial port; `id` is the port's device id. */
  readonly VSERPORT_CHANGE: { readonly id: string; readonly open: boolean };
  /** A device is gone for good; `device` is absent for one without an id. */
  readonly DEVICE_DELETED: { readonly device?: string; readonly path: string };
  readonly DEVICE_UNPLUG_GUEST_ERROR: { readonly device?: string; readonly path: string };
  readonly MEMORY_DEVICE_SIZE_CHANGE: { readonly id?: string; readonly size: number; readonly "qom-path": string };
  readonly MEMORY_FAILURE: { readonly recipient: string; readonly action: string };
  readonly BALLOON_CHANGE: { readonly actual: number };
  /** "setup", "active", "completed", "failed", "cancelled", ...; sent only with the capability "events". */
  readonly MIGRATION: { readonly status: string };
  readonly GUEST_PANICKED: { readonly action: string; readonly info?: unknown };
  readonly GUEST_CRASHLOADED: { readonly action: string; readonly info?: unknown };
  readonly BLOCK_IO_ERROR: {
    readonly device: string;
    readonly "node-name"?: string;
    /** "read" or "write". */
    readonly operation: string;
    /** "ignore", "report" or "stop". */
    readonly action: string;
    /** The host's disk is full. */
    readonly nospace?: boolean;
    readonly reason: string;
  };
  readonly NIC_RX_FILTER_CHANGED: { readonly name?: string; readonly path: string };
  readonly JOB_STATUS_CHANGE: { readonly id: string; readonly status: string };
}

export type QmpEventName = keyof QmpEvents;

const empty = object<Empty>({});
const stop = object<QmpEvents["SHUTDOWN"]>({ guest: boolean, reason: string });
const unplug = object<QmpEvents["DEVICE_DELETED"]>({ device: optional(string), path: string });
const panic = object<QmpEvents["GUEST_PANICKED"]>({ action: string, info: optional(anything) });

export const eventReaders: { readonly [E in QmpEventName]: Reader<QmpEvents[E]> } = {
  SHUTDOWN: stop,
  POWERDOWN: empty,
  RESET: stop,
  STOP: empty,
  RESUME: empty,
  SUSPEND: empty,
  WAKEUP: empty,
  WATCHDOG: object<QmpEvents["WATCHDOG"]>({ action: string }),
  VSERPORT_CHANGE: object<QmpEvents["VSERPORT_CHANGE"]>({ id: string, open: boolean }),
  DEVICE_DELETED: unplug,
  DEVICE_UNPLUG_GUEST_ERROR: unplug,
  MEMORY_DEVICE_SIZE_CHANGE: object<QmpEvents["MEMORY_DEVICE_SIZE_CHANGE"]>({ id: optional(string), size: integer(0), "qom-path": string }),
  MEMORY_FAILURE: object<QmpEvents["MEMORY_FAILURE"]>({ recipient: string, action: string }),
  BALLOON_CHANGE: object<QmpEvents["BALLOON_CHANGE"]>({ actual: integer(0) }),
  MIGRATION: object<QmpEvents["MIGRATION"]>({ status: string }),
  GUEST_PANICKED: panic,
  GUEST_CRASHLOADED: panic,
  BLOCK_IO_ERROR: object<QmpEvents["BLOCK_IO_ERROR"]>({
    device: string,
    "node-name": optional(string),
    operation: string,
    action: string,
    nospace: optional(boolean),
    reason: string,
  }),
  NIC_RX_FILTER_CHANGED: object<QmpEvents["NIC_RX_FILTER_CHANGED"]>({ name: optional(string), path: string }),
  JOB_STATUS_CHANGE: object<QmpEvents["JOB_STATUS_CHANGE"]>({ id: string, status: string }),
};

export function isKnownEvent(name: string): name is QmpEventName {
  return Object.hasOwn(eventReaders, name);
}
