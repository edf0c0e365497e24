/**
 * From text to a checked specification. Strict about types, by the field's path; properties that the specification does not have are
 * ignored, as it demands of runtimes, and listed so that they can be logged once.
 */
import { HuskError } from "../errors.ts";
import { type Reader, read, ShapeError } from "../narrow.ts";
import { parseJson } from "./json.ts";
import { process } from "./readers/process.ts";
import { resources } from "./readers/resources.ts";
import { spec } from "./readers/spec.ts";
import type { Process, Resources, Spec } from "./types.ts";

export interface Parsed<T> {
  readonly value: T;
  /** Paths of properties that are none of the specification's, such as `linux.colour`; at most 64. */
  readonly unknown: readonly string[];
}

/**
 * A bundle's config.json.
 * @param name of the document in messages, such as `config.json: process.args[0]: expected a non-empty string, got 5`.
 */
export function parseSpec(text: string, name = "config.json"): Parsed<Spec> {
  return parse(spec, text, name);
}

/** The process of `exec --process`. */
export function parseProcess(text: string, name: string): Parsed<Process> {
  return parse(process, text, name);
}

/** The resources of `update --resources`. */
export function parseResources(text: string, name: string): Parsed<Resources> {
  return parse(resources, text, name);
}

function parse<T>(reader: Reader<T>, text: string, name: string): Parsed<T> {
  const unknown: string[] = [];
  try {
    return { value: read(reader, parseJson(text, name), unknown), unknown };
  } catch (error) {
    if (!(error instanceof ShapeError)) throw error;
    throw new HuskError("invalid-argument", `${name}: ${error.message}`);
  }
}
