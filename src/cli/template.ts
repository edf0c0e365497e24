/** `husk template`: what sandboxes are cloned from. */
import { type Config, loadConfig } from "../config/config.ts";
import { HuskError } from "../errors.ts";
import { defaultSpec } from "../oci/default-spec.ts";
import { planVm, templateStore } from "../sandbox/plan-vm.ts";
import type { Template, TemplateStore } from "../template/store.ts";
import type { Invocation } from "./command-line.ts";
import { print, table } from "./output.ts";

export async function template({ operands, flags }: Invocation<"template">): Promise<void> {
  const [verb = "", ...keys] = operands;
  const { config } = await loadConfig({ env: process.env });
  const store = templateStore(config);
  const isPlain = (verb === "ls" || verb === "create") && keys.length === 0 && !flags.all;
  if (isPlain) return verb === "ls" ? list(store) : await create(config);
  if (verb === "inspect" && keys.length > 0 && !flags.all) return keys.forEach((key) => inspect(find(store, key)));
  if (verb === "rm" && keys.length > 0 !== flags.all) return remove(store, flags.all ? store.keys() : keys);
  throw new HuskError("invalid-argument", `template: ${operands.join(" ")}: expected ls, create, inspect KEY..., rm KEY... or rm --all`);
}

function list(store: TemplateStore): void {
  const { templates, damaged } = store.list();
  const rows = templates.map(({ key, manifest, usedAt }) => [key, manifest.machine, manifest.createdAt, usedAt.toISOString()]);
  print(table([["KEY", "MACHINE", "CREATED", "LAST USED"], ...rows]));
  if (damaged[0] !== undefined) throw damaged[0];
}

/** The template of a bundle that sets no limits. */
async function create(config: Config): Promise<void> {
  const { vm, notes } = await planVm(defaultSpec, config);
  if (vm.template === null)
    throw new HuskError("host", "no template was made", { cause: notes.at(-1) ?? "they are not used on this host" });
  print(`${vm.template.key}\n`);
}

function inspect({ key, folder, manifest }: Template): void {
  print(`${JSON.stringify({ key, folder, ...manifest }, null, 2)}\n`);
}

function remove(store: TemplateStore, keys: readonly string[]): void {
  for (const key of keys) {
    if (!store.remove(checked(key))) throw missing(key);
    print(`${key}\n`);
  }
}

function find(store: TemplateStore, key: string): Template {
  const found = store.find(checked(key));
  if (found === undefined) throw missing(key);
  return found;
}

/** A key is a folder's name: nothing else may lead to one. */
function checked(key: string): string {
  if (!/^[0-9a-f]{32}$/.test(key)) throw missing(key);
  return key;
}

function missing(key: string): HuskError {
  return new HuskError("not-found", `there is no template ${JSON.stringify(key).slice(1, -1).slice(0, 64)}`);
}
