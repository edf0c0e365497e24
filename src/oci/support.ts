/**
 * What husk does with each field of a bundle: honours it (in the guest, on the host), takes it as subsumed by the VM's boundary, ignores it
 * as the specification or runc does (both said once in the log), or refuses it by name before anything is started. Nothing is dropped
 * silently: the table has a row for every field that ./readers reads, and a test holds that.
 */
import { HuskError } from "../errors.ts";
import { judgeAnnotations } from "./support/annotations.ts";
import { judgeCapabilities } from "./support/capabilities.ts";
import { judgeDevices } from "./support/devices.ts";
import type { Circumstances, Finding } from "./support/finding.ts";
import { judgeHooks } from "./support/hooks.ts";
import { judgeMounts } from "./support/mounts.ts";
import { judgeNamespaces, sharedTypes } from "./support/namespaces.ts";
import { type FieldRule, fieldRules } from "./support/rules.ts";
import type { Process, Resources, Spec } from "./types.ts";

export type { Circumstances, Finding, GuestNamespace } from "./support/finding.ts";
export { type FieldRule, fieldRules } from "./support/rules.ts";
export { sharedTypes };

/** What a field that is set comes to, by its place in the table; the other places are honoured without a word. */
const verdicts: Partial<Record<FieldRule["place"], Finding["verdict"]>> = { refused: "refused", boundary: "noted", ignored: "noted" };

/** Judges a whole bundle: every finding, in the order of the table. */
export function judge(spec: Spec, circumstances: Circumstances): Finding[] {
  return [
    ...judgeFields(spec),
    ...judgeCapabilities(spec.process),
    ...judgeNamespaces(spec, circumstances),
    ...judgeMounts(spec, circumstances),
    ...judgeDevices(spec),
    ...judgeHooks(spec, circumstances),
    ...judgeVm(spec, circumstances),
    ...judgeAnnotations(spec, circumstances.allowedAnnotations ?? []),
  ];
}

/** Judges the process of an `exec`. */
export function judgeProcess(process: Process): Finding[] {
  return [...judgeFields({ process }), ...judgeCapabilities(process)];
}

/** Judges the resources of an `update`, whose paths begin with linux.resources. */
export function judgeUpdate(resources: Resources): Finding[] {
  const found = judgeFields({ linux: { resources } });
  if (resources.devices === undefined || resources.devices.length === 0) return found;
  const reason = "the rules of device access stay as they were at the container's creation, as with runc";
  return [...found, { verdict: "noted", path: "linux.resources.devices", reason }];
}

/**
 * Throws "unsupported" with everything that is refused, in one line; gives what is worth a line in the log.
 * @param name of the document, such as config.json.
 */
export function refuseUnsupported(findings: readonly Finding[], name = "config.json"): string[] {
  const lines = (verdict: Finding["verdict"]): string[] =>
    findings.filter((finding) => finding.verdict === verdict).map(({ path, reason }) => `${path}: ${reason}`);
  const refused = lines("refused");
  if (refused.length > 0) throw new HuskError("unsupported", `${name}: ${refused.join("; ")}`);
  return lines("noted");
}

function judgeFields(document: Partial<Spec>): Finding[] {
  return fieldRules.flatMap(({ field, place, reason = "", check }): Finding[] => {
    const verdict = verdicts[place];
    if (verdict === undefined) return [];
    if (check !== undefined) return check(document).map((found) => ({ verdict, ...found }));
    return isSet(valueAt(document, field)) ? [{ verdict, path: field, reason }] : [];
  });
}

function judgeVm(spec: Spec, { allowVmSection }: Circumstances): Finding[] {
  if (spec.vm === undefined || allowVmSection) return [];
  const reason = "the bundle may not choose the virtual machine; the administrator can allow it (allow.vm_section)";
  return [{ verdict: "refused", path: "vm", reason }];
}

function valueAt(document: object, field: string): unknown {
  return field
    .split(".")
    .reduce<unknown>((value, key) => (isObject(value) && Object.hasOwn(value, key) ? value[key] : undefined), document);
}

function isObject(value: unknown): value is Record<string, unknown> {
  return typeof value === "object" && value !== null;
}

/** Programs in Go write the zero value where nothing is asked. */
function isSet(value: unknown): boolean {
  if (isObject(value)) return Object.keys(value).length > 0;
  return value !== undefined && value !== null && value !== "" && value !== false && value !== 0;
}
