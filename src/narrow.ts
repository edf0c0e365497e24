/**
 * Narrow readers: from `unknown` to a checked type, with the field's path in the message. By hand rather than by a validation library,
 * since this runs at every start and libraries cost more than the whole of it.
 *
 * A reader takes a value and its place in the document, and gives the typed value or throws a ShapeError. `object` gives a fresh object
 * with the known properties alone, and notes the unknown ones at the root, for who wants to tell of them.
 */

/** How many unknown properties are remembered: they come from outside, so the list is bounded. */
const MAX_UNKNOWN = 64;

/** Where in a document a value stands. One is made for every value, so the path is put together only when it is printed. */
export class Place {
  readonly unknown: string[];
  readonly #parent: Place | undefined;
  readonly #step: string | number | undefined;

  constructor(unknown: string[] = [], parent?: Place, step?: string | number) {
    this.unknown = unknown;
    this.#parent = parent;
    this.#step = step;
  }

  /** The place of a property. */
  key(name: string): Place {
    return new Place(this.unknown, this, name);
  }

  index(position: number): Place {
    return new Place(this.unknown, this, position);
  }

  /** The path from the root, such as `process.args[0]`, names that are no plain words in quotes; empty at the root. */
  toString(): string {
    const parent = this.#parent?.toString() ?? "";
    if (this.#step === undefined) return parent;
    if (typeof this.#step === "number") return `${parent}[${this.#step}]`;
    if (!/^[\w-]+$/.test(this.#step)) return `${parent}[${JSON.stringify(shorten(this.#step))}]`;
    return parent === "" ? this.#step : `${parent}.${this.#step}`;
  }
}

/** A value that is not what it has to be: `process.args[0]: expected a string, got 5`. */
export class ShapeError extends Error {
  override readonly name = "ShapeError";
  readonly path: string;

  constructor(place: Place, problem: string) {
    const path = place.toString();
    super(path === "" ? problem : `${path}: ${problem}`);
    this.path = path;
  }
}

export interface Reader<T> {
  (value: unknown, place: Place): T;
  /** Of a reader of a structure: what it holds, for `propertiesOf`. */
  readonly properties?: Readonly<Record<string, Reader<unknown> | Optional<unknown>>>;
  readonly item?: Reader<unknown>;
}

/** A property that may be absent. null counts as absent: programs in Go write it for the empty list, map and pointer. */
export interface Optional<T> {
  readonly optional: Reader<T>;
}

export function optional<T>(reader: Reader<T>): Optional<T> {
  return { optional: reader };
}

/** One reader for each property of T, so that a property which is forgotten does not compile. */
export type Fields<T extends object> = {
  readonly [K in keyof T]-?: object extends Pick<T, K> ? Optional<Exclude<T[K], undefined>> : Reader<T[K]>;
};

/** Reads a whole document. `unknown` gets the paths of the properties that no reader asked for. */
export function read<T>(reader: Reader<T>, value: unknown, unknown: string[] = []): T {
  return reader(value, new Place(unknown));
}

export const anything: Reader<unknown> = (value) => value;

export const boolean: Reader<boolean> = (value, place) => (typeof value === "boolean" ? value : wrong(place, "true or false", value));

/** A string without a NUL byte, which no system call could carry. */
export const string: Reader<string> = (value, place) => {
  if (typeof value !== "string") return wrong(place, "a string", value);
  return value.includes("\0") ? wrong(place, "a string without a NUL byte", value) : value;
};

export const nonEmptyString: Reader<string> = (value, place) =>
  typeof value === "string" && value !== "" ? string(value, place) : wrong(place, "a non-empty string", value);

/** A path that begins with "/". */
export const absolutePath: Reader<string> = (value, place) =>
  typeof value === "string" && value.startsWith("/") ? string(value, place) : wrong(place, "an absolute path", value);

export function integer(min: number = Number.MIN_SAFE_INTEGER, max: number = Number.MAX_SAFE_INTEGER): Reader<number> {
  return (value, place) =>
    typeof value === "number" && Number.isInteger(value) && value >= min && value <= max ? value : wrong(place, range(min, max), value);
}

/** One of a few strings. */
export function oneOf<const T extends string>(choices: readonly T[]): Reader<T> {
  const listed = choices.map((choice) => JSON.stringify(choice)).join(", ");
  return (value, place) =>
    choices.find((choice) => choice === value) ?? wrong(place, choices.length === 1 ? listed : `one of ${listed}`, value);
}

export function list<T>(item: Reader<T>): Reader<readonly T[]> {
  const reader = (value: unknown, place: Place): readonly T[] => {
    if (!Array.isArray(value)) return wrong(place, "a list", value);
    return value.map((each: unknown, index) => item(each, place.index(index)));
  };
  return Object.assign(reader, { item });
}

export function nonEmptyList<T>(item: Reader<T>): Reader<readonly T[]> {
  const reader = (value: unknown, place: Place): readonly T[] =>
    Array.isArray(value) && value.length === 0 ? wrong(place, "a non-empty list", value) : list(item)(value, place);
  return Object.assign(reader, { item });
}

/** An object whose keys are data, such as annotations. */
export function map<T>(item: Reader<T>): Reader<Readonly<Record<string, T>>> {
  const reader = (value: unknown, place: Place): Readonly<Record<string, T>> => {
    const entries = Object.entries(plainObject(value, place));
    // fromEntries defines properties, so that a key named __proto__ stays a key.
    return Object.fromEntries(entries.map(([key, each]) => [key, item(each, place.key(key))]));
  };
  return Object.assign(reader, { item });
}

/** An object with the properties of T. Unknown ones are left out of the result and noted. */
export function object<T extends object>(fields: Fields<T>): Reader<T> {
  const properties: Readonly<Record<string, Reader<unknown> | Optional<unknown>>> = fields;
  const readers = Object.entries(properties);
  const reader = (value: unknown, place: Place): T => {
    const source = plainObject(value, place);
    const result: Record<string, unknown> = {};
    let found = 0;
    for (const [key, reader] of readers) {
      const present = Object.hasOwn(source, key);
      const property = present ? source[key] : undefined;
      if (present) found++;
      if (typeof reader === "function") result[key] = reader(property, place.key(key));
      else if (property !== undefined && property !== null) result[key] = reader.optional(property, place.key(key));
    }
    if (found < Object.keys(source).length) noteUnknown(source, fields, place);
    // The loop has read every property that Fields<T> demands, each by the reader of its type.
    return result as T;
  };
  return Object.assign(reader, { properties });
}

/** A reader that checks more than the shape: `problem` says what is wrong with the value, or nothing. */
export function checked<T>(reader: Reader<T>, problem: (value: T) => string | undefined): Reader<T> {
  const strict = (value: unknown, place: Place): T => {
    const result = reader(value, place);
    const text = problem(result);
    if (text !== undefined) throw new ShapeError(place, text);
    return result;
  };
  return Object.assign(strict, { properties: reader.properties, item: reader.item });
}

/** A reader that takes what is absent, or null, for `absent`. */
export function otherwise<T>(reader: Reader<T>, absent: unknown): Reader<T> {
  const lenient = (value: unknown, place: Place): T => reader(value ?? absent, place);
  return Object.assign(lenient, { properties: reader.properties, item: reader.item });
}

/** The paths of all properties that a reader takes, such as `mounts[].options`: the leaves, `[]` standing for list items and map entries. */
export function propertiesOf(reader: Reader<unknown>, path = ""): string[] {
  if (reader.item !== undefined) return propertiesOf(reader.item, `${path}[]`);
  if (reader.properties === undefined) return [path.replace(/(\[\])+$/, "")];
  return Object.entries(reader.properties).flatMap(([key, property]) =>
    propertiesOf("optional" in property ? property.optional : property, path === "" ? key : `${path}.${key}`),
  );
}

/** Throws the ShapeError for a value that is not what was expected. */
export function wrong(place: Place, expected: string, value: unknown): never {
  throw new ShapeError(place, `expected ${expected}, got ${show(value)}`);
}

/** A value in a few words, bounded, on one line. */
export function show(value: unknown): string {
  if (value === undefined) return "nothing";
  if (value === null) return "null";
  if (Array.isArray(value)) return value.length === 0 ? "an empty list" : "a list";
  if (typeof value === "object") return "an object";
  return typeof value === "string" ? JSON.stringify(shorten(value)) : shorten(String(value));
}

function plainObject(value: unknown, place: Place): Readonly<Record<string, unknown>> {
  if (typeof value !== "object" || value === null || Array.isArray(value)) return wrong(place, "an object", value);
  return value as Readonly<Record<string, unknown>>;
}

function noteUnknown(source: object, fields: object, place: Place): void {
  for (const key of Object.keys(source)) {
    if (place.unknown.length >= MAX_UNKNOWN) return;
    if (!Object.hasOwn(fields, key)) place.unknown.push(place.key(key).toString());
  }
}

function range(min: number, max: number): string {
  if (min === Number.MIN_SAFE_INTEGER && max === Number.MAX_SAFE_INTEGER) return "a whole number";
  if (max === Number.MAX_SAFE_INTEGER) return `a whole number of at least ${min}`;
  return `a whole number from ${min} to ${max}`;
}

function shorten(text: string): string {
  return text.length > 64 ? `${text.slice(0, 61)}...` : text;
}
