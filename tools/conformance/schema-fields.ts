/** The fields of the runtime specification, from its JSON schema: the paths of all leaves, `[]` standing for list items and map entries. */
import { existsSync, readFileSync } from "node:fs";

interface Schema {
  readonly $ref?: string;
  readonly properties?: Readonly<Record<string, Schema>>;
  readonly patternProperties?: Readonly<Record<string, Schema>>;
  readonly additionalProperties?: Schema | boolean;
  readonly items?: Schema;
  readonly allOf?: readonly Schema[];
  readonly anyOf?: readonly Schema[];
  readonly oneOf?: readonly Schema[];
}

/** A schema and the file that its references are relative to. */
interface Located {
  readonly schema: Schema;
  readonly file: string;
}

const documents = new Map<string, Schema>();

function load(file: string): Schema {
  const url = new URL(`schema/${file}`, import.meta.url);
  // Sections of other systems, see schema/README.md.
  const document = documents.get(file) ?? (existsSync(url) ? (JSON.parse(readFileSync(url, "utf8")) as Schema) : {});
  documents.set(file, document);
  return document;
}

function resolve({ schema, file }: Located): Located {
  if (schema.$ref === undefined) return { schema, file };
  const [name = "", pointer = ""] = schema.$ref.split("#");
  const target = name === "" ? file : name;
  const steps = pointer.split("/").filter(Boolean);
  const found = steps.reduce<unknown>((node, step) => (node as Record<string, unknown> | undefined)?.[step], load(target));
  return resolve({ schema: found ?? {}, file: target });
}

/** The alternatives and parts that a schema is made of. */
function parts(located: Located): Located[] {
  const { schema, file } = resolve(located);
  const further = [...(schema.allOf ?? []), ...(schema.anyOf ?? []), ...(schema.oneOf ?? [])];
  return [{ schema, file }, ...further.flatMap((each) => parts({ schema: each, file }))];
}

function children(located: Located, path: string): [string, Located][] {
  return parts(located).flatMap(({ schema, file }): [string, Located][] => {
    const { properties = {}, patternProperties = {}, additionalProperties, items } = schema;
    const entries = [...Object.values(patternProperties), ...(typeof additionalProperties === "object" ? [additionalProperties] : [])];
    return [
      ...Object.entries(properties).map(([key, each]): [string, Located] => [path === "" ? key : `${path}.${key}`, { schema: each, file }]),
      ...entries.map((each): [string, Located] => [`${path}[]`, { schema: each, file }]),
      ...(items === undefined ? [] : [[`${path}[]`, { schema: items, file }] as [string, Located]]),
    ];
  });
}

function leaves(located: Located, path: string): string[] {
  const below = children(located, path);
  // A list or a map of plain values is one field.
  return below.length === 0 ? [path.replace(/(\[\])+$/, "")] : below.flatMap(([name, each]) => leaves(each, name));
}

/** Every field of config.json, in the schema's order. */
export function schemaFields(): readonly string[] {
  return [...new Set(leaves({ schema: load("config-schema.json"), file: "config-schema.json" }, ""))];
}
