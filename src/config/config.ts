/**
 * The configuration: defaults, then /etc/husk/config.toml, then /etc/husk/config.d/*.toml in the order of their names, then flags; the last
 * word counts. The environment's HUSK_CONFIG names one file that takes the place of all of those. Every value knows where it came from.
 *
 *     const { config } = await loadConfig({ flags: { "vm.accel": { name: "--accel", text: "tcg" } }, env: process.env });
 */
import path from "node:path";
import { HuskError } from "../errors.ts";
import { Place, type Reader, ShapeError } from "../narrow.ts";
import { CONFIG_FILE, type ConfigFiles, DROP_IN_FOLDER, hostFiles } from "./files.ts";
import { nearest } from "./nearest.ts";
import type { Setting } from "./setting.ts";
import { type Config, configName, type SettingKey, settings } from "./settings.ts";

export type { ConfigFiles } from "./files.ts";
export type { Config, SettingKey } from "./settings.ts";

/** A setting that was given on the command line. */
export interface Flag {
  /** As the user wrote it, such as `--accel`. */
  readonly name: string;
  readonly text: string;
}

export interface LoadOptions {
  readonly flags?: Partial<Readonly<Record<SettingKey, Flag>>>;
  readonly env: Readonly<Record<string, string | undefined>>;
  /** The disk; the host's where none is given. */
  readonly files?: ConfigFiles;
}

export interface LoadedConfig {
  readonly config: Config;
  /** Where each value came from, by key: "default", a file's path, or a flag's name. */
  readonly sources: ReadonlyMap<string, string>;
}

/** A row of `husk config` and of the documentation. */
export interface ConfigRow {
  /** Such as "vm.memory". */
  readonly key: string;
  /** As TOML writes it. */
  readonly value: string;
  /** As TOML writes it. */
  readonly default: string;
  /** "default", a file's path, or a flag's name. */
  readonly source: string;
  /** What it may hold. */
  readonly kind: string;
  readonly doc: string;
}

/** The table with its types forgotten: each value goes back to the setting that it was read by. */
const table: ReadonlyMap<string, Setting<unknown>> = new Map(
  Object.entries<Readonly<Record<string, Setting<unknown>>>>(settings).flatMap(([section, group]) =>
    Object.entries(group).map(([name, setting]) => [`${section}.${name}`, setting] as const),
  ),
);

/** Reads what is in force. Throws "invalid-argument" with the file, the key and what is wrong with it. */
export async function loadConfig({ flags = {}, env, files = hostFiles }: LoadOptions): Promise<LoadedConfig> {
  const values = new Map<string, unknown>([...table].map(([key, setting]) => [key, setting.default]));
  const sources = new Map<string, string>([...table.keys()].map((key) => [key, "default"]));
  const put = (key: string, raw: unknown, source: string): void => {
    values.set(key, readSetting(key, raw, source));
    sources.set(key, source);
  };
  for (const { file, text } of configFiles(env, files)) {
    for (const [key, raw] of await readToml(file, text)) put(key, raw, file);
  }
  for (const [key, flag] of Object.entries(flags)) put(key, settingOf(key, flag.name).fromText(flag.text), flag.name);
  const config = build(values);
  checkTogether(config, sources);
  return { config, sources };
}

/** The rows of `husk config`: every setting, its value and where that came from. */
export function describeConfig({ config, sources }: LoadedConfig): ConfigRow[] {
  const groups: Readonly<Record<string, Readonly<Record<string, unknown>>>> = config;
  return [...table].map(([key, setting]) => {
    const [section = "", name = ""] = key.split(".");
    const value = setting.format(groups[section]?.[configName(name)]);
    const source = sources.get(key) ?? "default";
    return { key, value, default: setting.format(setting.default), source, kind: setting.kind, doc: setting.doc };
  });
}

function* configFiles(env: LoadOptions["env"], files: ConfigFiles): Generator<{ file: string; text: string }> {
  const chosen = env["HUSK_CONFIG"];
  if (chosen !== undefined && chosen !== "") {
    const text = files.readText(chosen);
    if (text === undefined) throw new HuskError("invalid-argument", `HUSK_CONFIG is ${chosen}, which does not exist`);
    yield { file: chosen, text };
    return;
  }
  const dropIns = files.list(DROP_IN_FOLDER).filter((name) => name.endsWith(".toml") && !name.startsWith("."));
  for (const file of [CONFIG_FILE, ...dropIns.toSorted().map((name) => path.join(DROP_IN_FOLDER, name))]) {
    const text = files.readText(file);
    if (text !== undefined) yield { file, text };
  }
}

/** The settings of one file, by key, as TOML has them. The parser is loaded only here: most hosts have no file. */
async function readToml(file: string, text: string): Promise<[string, unknown][]> {
  const { parse, TomlError } = await import("smol-toml");
  try {
    return Object.entries(parse(text)).flatMap(([section, group]): [string, unknown][] => {
      if (!Object.hasOwn(settings, section)) throw unknownKey(section, Object.keys(settings), file);
      if (!isTable(group)) throw new HuskError("invalid-argument", `${file}: ${section}: expected a table, [${section}]`);
      return Object.entries(group).map(([name, value]) => [`${section}.${name}`, value]);
    });
  } catch (error) {
    if (!(error instanceof TomlError)) throw error;
    const [problem = ""] = error.message.split("\n");
    throw new HuskError(
      "invalid-argument",
      `${file}: line ${error.line}, column ${error.column}: ${problem.replace("Invalid TOML document: ", "")}`,
    );
  }
}

function readSetting(key: string, raw: unknown, source: string): unknown {
  const reader: Reader<unknown> = settingOf(key, source).reader;
  try {
    return reader(
      raw,
      key.split(".").reduce((place, name) => place.key(name), new Place()),
    );
  } catch (error) {
    if (!(error instanceof ShapeError)) throw error;
    throw new HuskError("invalid-argument", `${source}: ${error.message}`);
  }
}

function settingOf(key: string, source: string): Setting<unknown> {
  const setting = table.get(key);
  if (setting === undefined) throw unknownKey(key, table.keys(), source);
  return setting;
}

function unknownKey(key: string, known: Iterable<string>, source: string): HuskError {
  const meant = nearest(key, known);
  const hint = meant === undefined ? "`husk config` lists them all" : `did you mean ${meant}?`;
  return new HuskError("invalid-argument", `${source}: ${key}: there is no such setting`, { hint });
}

function isTable(value: unknown): value is Record<string, unknown> {
  return typeof value === "object" && value !== null && !(value instanceof Date) && !Array.isArray(value);
}

/** The nested form. Every key of the table is in `values`, read by its own setting, which is what Config says. */
function build(values: ReadonlyMap<string, unknown>): Config {
  const config: Record<string, Record<string, unknown>> = {};
  for (const [key, value] of values) {
    const [section = "", name = ""] = key.split(".");
    config[section] = { ...config[section], [configName(name)]: value };
  }
  return config as Config;
}

/** Settings that contradict each other. */
function checkTogether({ vm }: Config, sources: ReadonlyMap<string, string>): void {
  if (vm.requireKvm && vm.accel === "tcg") {
    const where = `${sources.get("vm.accel")} says tcg, ${sources.get("vm.require_kvm")} says require_kvm`;
    throw new HuskError("invalid-argument", `vm.accel = "tcg" contradicts vm.require_kvm = true: ${where}`);
  }
}
