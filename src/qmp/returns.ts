/**
 * The readers of what the commands return: QEMU is hostile input, so an answer has its type only after it was looked at.
 */
import { anything, boolean, integer, list, map, object, optional, type Reader, string } from "../narrow.ts";
import type {
  BlockInfo,
  ChardevInfo,
  CpuInfo,
  FdsetInfo,
  HotpluggableCpu,
  MemoryDeviceInfo,
  MemorySizeSummary,
  MigrationInfo,
  ObjectPropertyInfo,
  PciBus,
  PciDevice,
  QmpCommandName,
  QmpReturns,
  StatusInfo,
} from "./commands.ts";
import { qmpVersion } from "./message.ts";

/** QEMU answers {} where there is nothing to say; what a newer one adds to that is of no concern. */
const nothing: Reader<void> = () => undefined;

const open = map(anything);

const pciDevice: Reader<PciDevice> = (value, place) =>
  object<PciDevice>({
    bus: integer(0),
    slot: integer(0),
    function: integer(0),
    qdev_id: string,
    class_info: object<PciDevice["class_info"]>({ class: integer(0), desc: optional(string) }),
    id: object<PciDevice["id"]>({ vendor: integer(0), device: integer(0) }),
    pci_bridge: optional(object<NonNullable<PciDevice["pci_bridge"]>>({ bus: open, devices: optional(list(pciDevice)) })),
  })(value, place);

export const returnReaders: { readonly [C in QmpCommandName]: Reader<QmpReturns<C>> } = {
  "query-status": object<StatusInfo>({ running: boolean, status: string }),
  "query-version": qmpVersion,
  "query-kvm": object<QmpReturns<"query-kvm">>({ enabled: boolean, present: boolean }),
  "query-commands": list(object<QmpReturns<"query-commands">[number]>({ name: string })),
  "query-cpus-fast": list(object<CpuInfo>({ "cpu-index": integer(0), "qom-path": string, "thread-id": integer(0) })),
  "query-hotpluggable-cpus": list(object<HotpluggableCpu>({ type: string, props: open, "qom-path": optional(string) })),
  "query-chardev": list(object<ChardevInfo>({ label: string, filename: string, "frontend-open": boolean })),
  "query-memory-devices": list(object<MemoryDeviceInfo>({ type: string, data: open })),
  "query-memory-size-summary": object<MemorySizeSummary>({ "base-memory": integer(0), "plugged-memory": optional(integer(0)) }),
  "query-balloon": object<QmpReturns<"query-balloon">>({ actual: integer(0) }),
  "query-block": list(
    object<BlockInfo>({
      device: string,
      qdev: optional(string),
      type: string,
      removable: boolean,
      locked: boolean,
      "io-status": optional(string),
      inserted: optional(
        object<NonNullable<BlockInfo["inserted"]>>({ "node-name": optional(string), drv: string, ro: boolean, file: string }),
      ),
    }),
  ),
  "query-pci": list(object<PciBus>({ bus: integer(0), devices: list(pciDevice) })),
  "query-fdsets": list(
    object<FdsetInfo>({
      "fdset-id": integer(0),
      fds: list(object<FdsetInfo["fds"][number]>({ fd: integer(), opaque: optional(string) })),
    }),
  ),
  "query-migrate": object<MigrationInfo>({
    status: optional(string),
    "total-time": optional(integer(0)),
    downtime: optional(integer(0)),
    "error-desc": optional(string),
    ram: optional(object<NonNullable<MigrationInfo["ram"]>>({ transferred: integer(0), remaining: integer(0), total: integer(0) })),
  }),

  qmp_capabilities: nothing,
  cont: nothing,
  stop: nothing,
  quit: nothing,
  system_powerdown: nothing,
  system_reset: nothing,
  "inject-nmi": nothing,
  balloon: nothing,
  device_add: nothing,
  device_del: nothing,
  netdev_add: nothing,
  netdev_del: nothing,
  "chardev-add": object<QmpReturns<"chardev-add">>({ pty: optional(string) }),
  "chardev-remove": nothing,
  "object-add": nothing,
  "object-del": nothing,
  "blockdev-add": nothing,
  "blockdev-del": nothing,
  set_link: nothing,
  "qom-get": anything,
  "qom-set": nothing,
  "qom-list": list(object<ObjectPropertyInfo>({ name: string, type: string })),
  migrate: nothing,
  "migrate-incoming": nothing,
  migrate_cancel: nothing,
  "migrate-set-capabilities": nothing,
  "migrate-set-parameters": nothing,
  getfd: nothing,
  closefd: nothing,
  "add-fd": object<QmpReturns<"add-fd">>({ "fdset-id": integer(0), fd: integer() }),
  "remove-fd": nothing,
  "human-monitor-command": string,
};
