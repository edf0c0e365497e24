/** `husk template`: what sandboxes are cloned from. */
import { join } from "node:path";
import { type Config, loadConfig } from "../config/config.ts";
import { formatSize, isName } from "../config/setting.ts";
import { HuskError } from "../errors.ts";
import { comesTrue } from "../host/comes-true.ts";
import { isAlive } from "../host/process-identity.ts";
import { ownAnnotations } from "../oci/annotations.ts";
import { defaultSpec } from "../oci/default-spec.ts";
import { planVm, templateStore } from "../sandbox/plan-vm.ts";
import { diskBytes, type Template, type TemplateStore } from "../template/store.ts";
import { everybody, kubernetesNamespace } from "../template/tenant.ts";
import { findZygote, zygoteKeeper } from "../template/zygote.ts";
import type { Invocation } from "./command-line.ts";
import { print, table } from "./output.ts";

/** How long a template's keeper may take to end what stands by, in milliseconds. */
const keeperEndsWithinMs = 10_000;

export async function template({ operands, flags }: Invocation<"template">): Promise<void> {
  const [verb = "", ...keys] = operands;
  const { tenant } = flags;
  const { config } = await loadConfig({ env: process.env });
  const store = templateStore(config);
  if (verb === "ls" && keys.length === 0 && !flags.all) return list(store, tenant);
  if (verb === "create" && keys.length === 0 && !flags.all) return await create(config, tenant);
  if (verb === "inspect" && keys.length > 0 && !flags.all && tenant === undefined) return keys.forEach((key) => inspect(find(store, key)));
  if (verb === "rm" && keys.length > 0 !== flags.all && (flags.all || tenant === undefined)) {
    return await remove(store, flags.all ? keysOf(store, tenant) : keys);
  }
  throw new HuskError(
    "invalid-argument",
    `template: ${operands.join(" ")}: expected ls, create, inspect KEY..., rm KEY... or rm --all; --tenant goes with ls, create and rm --all`,
  );
}

function list(store: TemplateStore, tenant: string | undefined): void {
  const { templates, damaged } = store.list();
  const rows = templates.filter(belongsTo(tenant)).map((each) => {
    const { key, manifest, usedAt } = each;
    const size = formatSize(Math.ceil(diskBytes(each) / 1024 ** 2) * 1024 ** 2);
    return [key, manifest.machine, manifest.tenant || "-", size, manifest.createdAt, usedAt.toISOString()];
  });
  print(table([["KEY", "MACHINE", "TENANT", "SIZE", "CREATED", "LAST USED"], ...rows]));
  if (damaged[0] !== undefined) throw damaged[0];
}

/** Those of a tenant, by his own name or by the text that the list shows; all, where none is named. */
function belongsTo(tenant: string | undefined): (template: Template) => boolean {
  return ({ manifest: { tenant: own = everybody } }) => tenant === undefined || own === tenant || own === `name:${tenant}`;
}

function keysOf(store: TemplateStore, tenant: string | undefined): readonly string[] {
  if (tenant === undefined) return store.keys(); // the damaged ones too
  return store
    .list()
    .templates.filter(belongsTo(tenant))
    .map(({ key }) => key);
}

/** The template of a bundle that sets no limits. */
async function create(config: Config, tenant: string | undefined): Promise<void> {
  const { annotations, engineNamespace } = tenant === undefined ? { annotations: {} } : bundleOf(tenant);
  const settings = tenant === undefined ? config : { ...config, template: { ...config.template, tenant: "namespace" } };
  const { vm, notes } = await planVm({ ...defaultSpec, annotations }, settings, engineNamespace);
  if (vm.template === null)
    throw new HuskError("host", "no template was made", { cause: notes.at(-1) ?? "they are not used on this host" });
  print(`${vm.template.key}\n`);
}

/** What a tenant's bundles are known by. */
function bundleOf(tenant: string): { readonly annotations: Readonly<Record<string, string>>; readonly engineNamespace?: string } {
  const [, kind, name = ""] = /^(kubernetes|containerd|name):(.*)$/.exec(tenant) ?? ["", "name", tenant];
  if (kind === "containerd" && name !== "") return { annotations: {}, engineNamespace: name };
  if (kind === "kubernetes" && name !== "") return { annotations: { [kubernetesNamespace]: name } };
  if (kind === "name" && isName(name)) return { annotations: { [ownAnnotations.tenant]: name } };
  throw new HuskError("invalid-argument", `--tenant: expected NAME, kubernetes:NAME or containerd:NAME, got ${JSON.stringify(tenant)}`);
}

function inspect(template: Template): void {
  const { key, folder, manifest } = template;
  const zygote = findZygote(template)?.process.pid ?? null;
  print(`${JSON.stringify({ key, folder, ...manifest, diskBytes: diskBytes(template), zygote }, null, 2)}\n`);
}

/** What stands by of a template goes with it: its keeper has ended, and has given everything back, when this is done. */
async function remove(store: TemplateStore, keys: readonly string[]): Promise<void> {
  for (const key of keys) {
    const keeper = zygoteKeeper({ folder: join(store.folder, checked(key)) });
    if (!store.remove(key)) throw missing(key);
    print(`${key}\n`);
    if (keeper === undefined || (await comesTrue(() => !isAlive(keeper), keeperEndsWithinMs))) continue;
    throw new HuskError(
      "deadline",
      `the template ${key} is removed, but what stands by of it is not: its keeper, process ${keeper.pid}, does not end`,
    );
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
