/**
 * What a checkpoint says of itself: everything that must be the same where it is restored. The file comes from outside, whoever wrote it, and is read field
 * by field.
 */
import { HuskError } from "../errors.ts";
import { boolean, checked, integer, list, object, oneOf, optional, type Reader, read, string, wrong } from "../narrow.ts";
import type { Accelerator, MachineSize } from "../vmm/machine.ts";

/** A disk of the machine, and how to tell that it holds what it held. */
export interface SavedDisk {
  readonly serial: string;
  readonly readonly: boolean;
  readonly isDevice: boolean;
  readonly bytes: number;
  /** As disks.ts has it: of the disk itself, where nothing has written to it since. */
  readonly witness: string;
  /** A copy beside the manifest, where the machine went on writing to the disk, and what `husk-helper template sum` says of it. */
  readonly copy?: { readonly file: string; readonly sum: string };
}

/** A network device of the machine: on which port, and what the guest knew it by. */
export interface SavedLink {
  readonly index: number;
  readonly name: string;
  readonly mac: string;
}

/** A file beside the manifest, and what it holds. */
export interface SavedFile {
  readonly file: string;
  readonly sha256: string;
}

export interface Manifest {
  readonly format: typeof format;
  readonly version: typeof formatVersion;
  /** The husk that made it. */
  readonly husk: string;
  readonly createdAt: string;
  /** The QEMU that made it, in its own words. */
  readonly qemu: string;
  readonly accelerator: Accelerator;
  /** Of the host, where the guest sees it; "" where the processor is emulated. */
  readonly processor: string;
  readonly vcpus: number;
  /** How far the machine can grow. */
  readonly limits: MachineSize;
  readonly networkPorts: number;
  readonly devicePorts: number;
  /** QEMU's command line for the restored machine, which says all of it. */
  readonly arguments: readonly string[];
  /** Of the dial that the guest takes in the midst of the session that went on at the checkpoint. */
  readonly nonce: string;
  readonly links: readonly SavedLink[];
  readonly disks: readonly SavedDisk[];
  readonly container: {
    readonly id: string;
    /** What the guest knows it by. */
    readonly guestId: string;
    readonly terminal: boolean;
    readonly paused: boolean;
    /** The specification in the guest's words, as JSON. */
    readonly spec: string;
  };
  /** `packedBytes`: the length of its file, which holds what is in use alone. */
  readonly memory: { readonly file: string; readonly bytes: number; readonly packedBytes: number; readonly sum: string };
  readonly state: SavedFile;
  /** What the server of the folder that the guest shares with the host knew, where there is one. */
  readonly folder?: SavedFile;
}

const format = "husk-checkpoint";
/** Goes up whenever a checkpoint of an older husk could not be restored by this one. */
const formatVersion = 4;

/** The name of a file beside the manifest: nothing that leads elsewhere. */
const plainName = checked(string, (name) =>
  /^[a-z0-9]+-[0-9a-f]{16}$/.test(name) ? undefined : "expected the name of a checkpoint's file",
);
const sum = checked(string, (text) => (/^[0-9a-f]{8}$/.test(text) ? undefined : "expected 8 hexadecimal digits"));
const sha256 = checked(string, (text) => (/^[0-9a-f]{64}$/.test(text) ? undefined : "expected 64 hexadecimal digits"));
const nonce = checked(string, (text) => (/^[0-9a-f]{32}$/.test(text) ? undefined : "expected 32 hexadecimal digits"));
const mac = checked(string, (text) => (/^([0-9a-f]{2}:){5}[0-9a-f]{2}$/.test(text) ? undefined : "expected a MAC address"));
const identifier = checked(string, (text) => (/^[\w+.-]{1,255}$/.test(text) ? undefined : "expected a container's id"));
const mebibyte = 1024 * 1024;

const savedFile = object<SavedFile>({ file: plainName, sha256 });

const manifest: Reader<Manifest> = object<Manifest>({
  format: (value, place) => (value === format ? value : wrong(place, JSON.stringify(format), value)),
  version: (value, place) => (value === formatVersion ? value : wrong(place, String(formatVersion), value)),
  husk: string,
  createdAt: string,
  qemu: string,
  accelerator: oneOf(["kvm", "tcg"]),
  processor: string,
  vcpus: integer(1, 1024),
  limits: object<MachineSize>({ vcpus: integer(1, 1024), memoryBytes: integer(1) }),
  networkPorts: integer(0, 64),
  devicePorts: integer(0, 64),
  arguments: list(string),
  nonce,
  links: list(object<SavedLink>({ index: integer(0, 63), name: string, mac })),
  disks: list(
    object<SavedDisk>({
      serial: string,
      readonly: boolean,
      isDevice: boolean,
      bytes: integer(0),
      witness: string,
      copy: optional(object<NonNullable<SavedDisk["copy"]>>({ file: plainName, sum })),
    }),
  ),
  container: object<Manifest["container"]>({ id: identifier, guestId: identifier, terminal: boolean, paused: boolean, spec: string }),
  memory: object<Manifest["memory"]>({
    file: plainName,
    bytes: checked(integer(mebibyte), (bytes) => (bytes % mebibyte === 0 ? undefined : "expected a number of mebibytes")),
    packedBytes: integer(0),
    sum,
  }),
  state: savedFile,
  folder: optional(savedFile),
});

/** Reads a manifest. Throws a ShapeError that names the first field that is not as it must be. */
export function parseManifest(value: unknown): Manifest {
  return read(manifest, value);
}

/** A manifest with what is the same in all of them. */
export function newManifest(content: Omit<Manifest, "format" | "version" | "createdAt">): Manifest {
  return { format, version: formatVersion, createdAt: new Date().toISOString(), ...content };
}

/** What would restore it. */
export type Restorer = Pick<Manifest, "husk" | "accelerator" | "processor" | "arguments">;

/** Throws `unsupported` where the checkpoint was made by what cannot be told to be the same here. */
export function demandSameMachine(saved: Manifest, here: Restorer): void {
  demandSame("husk", saved.husk, here.husk);
  demandSame("processor emulation", saved.accelerator, here.accelerator);
  demandSame("kind of processor", saved.processor, here.processor);
  const words = Math.max(saved.arguments.length, here.arguments.length);
  for (let index = 0; index < words; index++) {
    demandSame("machine", saved.arguments[index] ?? "nothing", here.arguments[index] ?? "nothing");
  }
}

/** Throws `unsupported` where QEMU, which alone understands what it has saved, is another one. */
export function demandSameQemu(saved: string, here: string): void {
  demandSame("QEMU", saved, here);
}

function demandSame(what: string, saved: string, here: string): void {
  if (saved === here) return;
  throw new HuskError("unsupported", `the checkpoint was made with another ${what}: ${shorten(saved)}, and not ${shorten(here)}`);
}

function shorten(text: string): string {
  const line = JSON.stringify(text).slice(1, -1);
  return line.length > 200 ? `${line.slice(0, 197)}...` : line;
}
