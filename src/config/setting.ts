/**
 * One setting: what it may hold, what it holds where nobody says, how it is written, and what it is for.
 */
import { boolean, integer, list, oneOf, type Place, type Reader, string, wrong } from "../narrow.ts";

export interface Setting<T> {
  readonly default: T;
  /** For people: what it does, and why the default is what it is. One paragraph. */
  readonly doc: string;
  /** What it may hold, for people. */
  readonly kind: string;
  /** Reads a value as TOML has it. */
  readonly reader: Reader<T>;
  /** Makes what TOML would have of a flag's text. */
  fromText(text: string): unknown;
  /** The value as TOML has it. A method, so that a table of settings of all kinds has a type. */
  format(value: T): string;
}

/** What a setting holds. */
export type ValueOf<S> = S extends Setting<infer T> ? T : never;

export function choice<const T extends string>(choices: readonly T[], fallback: NoInfer<T>, doc: string): Setting<T> {
  return {
    default: fallback,
    doc,
    kind: choices.map((each) => JSON.stringify(each)).join(", "),
    reader: oneOf(choices),
    fromText: (text) => text,
    format: (value) => JSON.stringify(value),
  };
}

export function yesOrNo(fallback: boolean, doc: string): Setting<boolean> {
  return {
    default: fallback,
    doc,
    kind: "true, false",
    reader: boolean,
    fromText: (text) => (text === "true" ? true : text === "false" ? false : text),
    format: String,
  };
}

export function wholeNumber(min: number, max: number, fallback: number, doc: string): Setting<number> {
  return {
    default: fallback,
    doc,
    kind: `${min} to ${max}`,
    reader: integer(min, max),
    fromText: (text) => (/^\d{1,15}$/.test(text) ? Number(text) : text),
    format: String,
  };
}

/** A time in whole seconds, for a setting whose name ends with `_s`; its value is in milliseconds. */
export function seconds(min: number, max: number, fallback: number, doc: string): Setting<number> {
  const inSeconds = wholeNumber(min, max, fallback, doc);
  return {
    ...inSeconds,
    default: fallback * 1000,
    reader: (value, place) => inSeconds.reader(value, place) * 1000,
    format: (value) => String(value / 1000),
  };
}

/** One of a few words, or a path that begins with "/". */
export function wordOrPath(words: readonly string[], doc: string, fallback = "auto"): Setting<string> {
  const kind = `${words.map((word) => JSON.stringify(word)).join(", ")}, or an absolute path`;
  const reader: Reader<string> = (value, place) => {
    const text = string(value, place);
    return words.includes(text) || text.startsWith("/") ? text : wrong(place, kind, value);
  };
  return { default: fallback, doc, kind, reader, fromText: (text) => text, format: (value) => JSON.stringify(value) };
}

/** Whether a text is a name as `wordOrName` takes it. */
export function isName(text: string): boolean {
  return /^[A-Za-z0-9][A-Za-z0-9._-]{0,62}$/.test(text);
}

/** One of a few words, or a name. The first word is the default. */
export function wordOrName(words: readonly [string, ...string[]], doc: string): Setting<string> {
  const kind = `${words.map((word) => JSON.stringify(word)).join(", ")}, or a name of up to 63 letters, digits and ._-`;
  const reader: Reader<string> = (value, place) => {
    const text = string(value, place);
    return isName(text) ? text : wrong(place, kind, value);
  };
  return { default: words[0], doc, kind, reader, fromText: (text) => text, format: (value) => JSON.stringify(value) };
}

/** Any of a few words; as a flag, separated by commas. */
export function anyOf(choices: readonly string[], doc: string): Setting<readonly string[]> {
  return {
    default: [],
    doc,
    kind: `a list of ${choices.map((each) => JSON.stringify(each)).join(", ")}`,
    reader: list(oneOf(choices)),
    fromText: (text) => text.split(",").filter((word) => word !== ""),
    format: (value) => JSON.stringify(value),
  };
}

const units = { KiB: 1024, MiB: 1024 ** 2, GiB: 1024 ** 3 } as const;

/** A number of bytes, written as "512MiB". `step`: what it must be a multiple of. */
export function size(min: string, max: string, fallback: string, doc: string, step = "1KiB"): Setting<number> {
  const [minBytes, maxBytes, stepBytes] = [sizeBytes(min), sizeBytes(max), sizeBytes(step)];
  const kind = `a size from "${min}" to "${max}"${step === "1KiB" ? "" : ` in steps of ${step}`}`;
  const reader = (value: unknown, place: Place): number => {
    const bytes = typeof value === "string" ? parseSize(value) : undefined;
    const fits = bytes !== undefined && bytes >= minBytes && bytes <= maxBytes && bytes % stepBytes === 0;
    return fits ? bytes : wrong(place, kind, value);
  };
  return {
    default: sizeBytes(fallback),
    doc,
    kind,
    reader,
    fromText: (text) => text,
    format: (value) => JSON.stringify(formatSize(value)),
  };
}

/** The bytes that "512MiB" stands for; undefined where it is no size. */
export function parseSize(text: string): number | undefined {
  const [, digits, unit] = /^(\d{1,9})(KiB|MiB|GiB)$/.exec(text) ?? [];
  return digits === undefined ? undefined : Number(digits) * units[unit as keyof typeof units];
}

/** The largest unit that leaves no fraction. */
export function formatSize(bytes: number): string {
  const unit = (["GiB", "MiB"] as const).find((each) => bytes > 0 && bytes % units[each] === 0) ?? "KiB";
  return `${bytes / units[unit]}${unit}`;
}

function sizeBytes(text: string): number {
  const bytes = parseSize(text);
  if (bytes === undefined) throw new TypeError(`no size: ${text}`);
  return bytes;
}
