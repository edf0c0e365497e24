/** `husk config`: as the TOML that would say the same, with where each value comes from beside it. */
import { type ConfigRow, describeConfig, loadConfig } from "../config/config.ts";
import { print } from "./output.ts";

export async function showConfig(): Promise<void> {
  print(configText(describeConfig(await loadConfig({ env: process.env }))));
}

/** One table a section, one line a setting. */
export function configText(rows: readonly ConfigRow[]): string {
  const assignments = rows.map(({ key, value }) => `${key.slice(key.indexOf(".") + 1)} = ${value}`);
  const width = Math.max(0, ...assignments.map((assignment) => assignment.length));
  let section = "";
  let text = "";
  for (const [index, { key, source }] of rows.entries()) {
    const own = key.slice(0, key.indexOf("."));
    if (own !== section) text += `${section === "" ? "" : "\n"}[${own}]\n`;
    section = own;
    text += `${(assignments[index] ?? "").padEnd(width)}  # ${source}\n`;
  }
  return text;
}
