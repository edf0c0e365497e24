/**
 * The wire format: one JSON object a line. QEMU's docs/interop/qmp-spec.rst is the specification.
 */
import { anything, integer, list, object, optional, type Place, type Reader, read, ShapeError, string, wrong } from "../narrow.ts";

export interface QmpVersion {
  readonly qemu: { readonly major: number; readonly minor: number; readonly micro: number };
  /** The packager's words, such as "Debian 1:7.2+dfsg-7+deb12u18"; may be empty. */
  readonly package: string;
}

export interface Greeting {
  readonly version: QmpVersion;
  /** What the monitor can be asked to enable, such as "oob". */
  readonly capabilities: readonly string[];
}

export interface QmpTimestamp {
  readonly seconds: number;
  readonly microseconds: number;
}

export type Message =
  | { readonly kind: "greeting"; readonly greeting: Greeting }
  | { readonly kind: "return"; readonly id: number; readonly value: unknown }
  /** Without an id: QEMU could not make out which command it answers, so it did not understand one. */
  | { readonly kind: "error"; readonly id: number | undefined; readonly class: string; readonly desc: string }
  | { readonly kind: "event"; readonly name: string; readonly data: unknown; readonly timestamp: QmpTimestamp };

const version = object<{ readonly major: number; readonly minor: number; readonly micro: number }>({
  major: integer(0),
  minor: integer(0),
  micro: integer(0),
});

export const qmpVersion: Reader<QmpVersion> = object<QmpVersion>({ qemu: version, package: string });

const greeting = object<Greeting>({ version: qmpVersion, capabilities: list(string) });
const refusal = object<{ readonly class: string; readonly desc: string }>({ class: string, desc: string });
const timestamp = object<QmpTimestamp>({ seconds: integer(), microseconds: integer() });
const id = integer(0);

interface Envelope {
  readonly QMP?: Greeting;
  readonly id?: number;
  readonly error?: { readonly class: string; readonly desc: string };
  readonly event?: string;
  readonly data?: unknown;
  readonly timestamp?: QmpTimestamp;
}

const envelope = object<Envelope>({
  QMP: optional(greeting),
  id: optional(id),
  error: optional(refusal),
  event: optional(string),
  data: optional(anything),
  timestamp: optional(timestamp),
});

const message: Reader<Message> = (value, place) => {
  const parts = envelope(value, place);
  if (parts.QMP !== undefined) return { kind: "greeting", greeting: parts.QMP };
  if (parts.event !== undefined) {
    const stamp = parts.timestamp ?? wrong(place.key("timestamp"), "an object", undefined);
    return { kind: "event", name: parts.event, data: parts.data ?? {}, timestamp: stamp };
  }
  if (parts.error !== undefined) return { kind: "error", id: parts.id, ...parts.error };
  const result = returned(value, place);
  return { kind: "return", id: parts.id ?? wrong(place.key("id"), "a whole number", undefined), value: result };
};

/** The value of "return", which may be anything, null too. */
function returned(value: unknown, place: Place): unknown {
  if (typeof value !== "object" || value === null || !("return" in value)) {
    throw new ShapeError(place, "expected a greeting, a return, an error or an event");
  }
  return value.return;
}

/** Reads one line. Throws a SyntaxError where it is no JSON, a TypeError where it is no UTF-8, a ShapeError where it is no QMP. */
export function decodeMessage(line: Buffer): Message {
  const text = new TextDecoder("utf-8", { fatal: true }).decode(line);
  return read(message, JSON.parse(text));
}

/** One command as a line. */
export function encodeCommand(id: number, name: string, args: object | undefined, outOfBand: boolean): string {
  return `${JSON.stringify({ [outOfBand ? "exec-oob" : "execute"]: name, ...(args === undefined ? {} : { arguments: args }), id })}\n`;
}
