import { HuskError } from "../errors.ts";

/** How much of QEMU's own words is shown. */
const MAX_DESCRIPTION = 1000;

/** QEMU said no to a command. */
export class QmpError extends HuskError {
  override readonly name = "QmpError";
  readonly command: string;
  /** QEMU's error class; nearly always "GenericError", also "CommandNotFound", "DeviceNotFound", "DeviceNotActive", "KVMMissingCap". */
  readonly class: string;
  /** QEMU's words, on one line, without control characters. */
  readonly desc: string;

  constructor(command: string, errorClass: string, desc: string) {
    const text = printable(desc);
    super("vmm", `QEMU refused ${command}: ${text}`);
    this.command = command;
    this.class = errorClass;
    this.desc = text;
  }
}

/** Text of a hostile origin as it may be printed: one line, bounded, without control characters (they could drive a terminal). */
export function printable(text: string): string {
  const line = text.replaceAll(/[\p{Cc}\p{Cf}\s]+/gu, " ").trim();
  return line.length > MAX_DESCRIPTION ? `${line.slice(0, MAX_DESCRIPTION - 3)}...` : line;
}
