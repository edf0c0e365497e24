/**
 * Holds the house's layers: a folder of src/ imports only from folders below it, and from another folder only what is not private to it.
 * Prints each import that breaks the rule, and ends with 1 where there is one.
 */
import { readdirSync, readFileSync } from "node:fs";
import { dirname, join, relative } from "node:path";

/** From the bottom up; a folder may import from the rows before its own, and folders of one row do not know each other. */
const layers: readonly (readonly string[])[] = [
  ["code-cache.ts"],
  ["errors.ts", "narrow.ts", "gen", "loader.ts", "version.ts"],
  ["config", "dbus", "oci", "qmp", "telemetry", "ttrpc"],
  ["host"],
  ["vmm", "agent"],
  ["storage", "network", "template", "checkpoint"],
  ["sandbox"],
  ["task", "pool"],
  ["shim", "cli", "platform", "sdk"],
];

const rowOf = new Map(layers.flatMap((row, index) => row.map((folder): [string, number] => [folder, index])));

/** The folder of src/ (or the file directly in it) that a path belongs to. */
function folderOf(path: string): string {
  return (relative("src", path).split("/")[0] ?? "").replace(/\.test\.ts$/, ".ts");
}

function complaint(from: string, to: string): string | undefined {
  const [fromFolder, toFolder] = [folderOf(from), folderOf(to)];
  if (fromFolder === toFolder) return undefined;
  const [fromRow, toRow] = [rowOf.get(fromFolder), rowOf.get(toFolder)];
  if (fromRow === undefined) return `${from}: src/${fromFolder} has no layer; give it one in tools/layers.ts`;
  if (toRow === undefined || toRow >= fromRow) return `${from} imports ${to}: src/${fromFolder} stands below or beside src/${toFolder}`;
  return undefined;
}

const sources = readdirSync("src", { recursive: true, encoding: "utf8" })
  .filter((name) => name.endsWith(".ts") && !name.startsWith("gen/"))
  .map((name) => join("src", name));
const complaints = sources.flatMap((source) => {
  const imports = readFileSync(source, "utf8").matchAll(/(?:from|import\()\s*"(\.{1,2}\/[^"]+)"/g);
  return [...imports].flatMap(([, target = ""]) => complaint(source, join(dirname(source), target)) ?? []);
});
for (const line of complaints) console.error(line);
process.exitCode = complaints.length === 0 ? 0 : 1;
