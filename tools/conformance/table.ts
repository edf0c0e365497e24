/** docs/conformance.md: every field of config.json, what husk does with it, and the test that proves it. */
import { type FieldRule, fieldRules } from "../../src/oci/support.ts";
import { type Proof, proofs } from "./proofs.ts";
import { schemaFields } from "./schema-fields.ts";

export interface Row {
  readonly field: string;
  readonly rule: FieldRule | undefined;
  readonly proof: Proof | undefined;
}

/** A row for each field of the schema, with the rule and the proof that hold for it; undefined where there is none. */
export function rows(): readonly Row[] {
  return schemaFields().map((field) => ({ field, rule: nearest(fieldRules, field), proof: nearest(proofs, field) }));
}

/** The entry with the longest field that holds for this one. */
export function nearest<T extends { readonly field: string }>(entries: readonly T[], field: string): T | undefined {
  const covers = (other: string): boolean => field === other || field.startsWith(`${other}.`) || field.startsWith(`${other}[]`);
  return entries.filter((entry) => covers(entry.field)).toSorted((a, b) => b.field.length - a.field.length)[0];
}

/** The document. */
export function conformanceTable(): string {
  const all = rows();
  const sections = [
    ["The container", (field: string) => !/^(process|mounts|hooks|linux|vm)/.test(field)],
    ["process", (field: string) => field.startsWith("process")],
    ["mounts", (field: string) => field.startsWith("mounts")],
    ["hooks", (field: string) => field.startsWith("hooks")],
    ["linux", (field: string) => field.startsWith("linux") && !/^linux\.(resources|seccomp)/.test(field)],
    ["linux.resources", (field: string) => field.startsWith("linux.resources")],
    ["linux.seccomp", (field: string) => field.startsWith("linux.seccomp")],
    ["vm", (field: string) => field.startsWith("vm")],
  ] as const;
  return `${[
    `# The runtime specification, field by field

<!-- Written by tools/conformance.ts from src/oci/support/rules.ts and tools/conformance/proofs.ts; a test holds it to them. -->

Every field of [config.json](https://github.com/opencontainers/runtime-spec/blob/v1.3.0/config.md), 1.2 and 1.3, on Linux and for VMs. A field is **honoured**, in the guest or on
the host; **subsumed** by the virtual machine's boundary, which the log says once; **without effect**, as the specification or runc has it, which the log says
too; or **refused** by name, as \`husk: config.json: FIELD: REASON\`, before anything starts. A property that the specification does not have is ignored, as it
demands, and named in the log.

Limits: a container's own act in the guest. The host's cgroup of its sandbox holds the container's memory limit, what the guest needs for itself
(\`vm.memory_overhead\`) and what QEMU and virtiofsd need (\`vm.host_overhead\`), so that a container that takes too much is killed in the guest, and never QEMU. The
virtual machine has as many processors and as much memory as the limits ask for. It grows where they rise, or another container comes into a pod, up to
\`vm.max_vcpus\` and \`vm.max_memory\`, beyond which the change is refused by name; it gives back where they fall. Limits of a pod's containers add up; the
host's processors and memory nodes are joined, where each container names some; block I/O is without effect in a pod, which the log says.`,
    ...sections.map(
      ([title, belongs]) => `## ${title}

| field | what becomes of it | test |
| --- | --- | --- |
${all
  .filter(({ field }) => belongs(field))
  .map(
    ({ field, rule, proof }) =>
      `| \`${field}\` | ${treatment(field, rule, proof)} | [${proof?.test.replaceAll("|", "\\|").replace(/^%s /, "")}](../${proof?.file}) |`,
  )
  .join("\n")}`,
    ),
  ].join("\n\n")}\n`;
}

/** What is done with a field, in words. */
export function treatment(field: string, rule: FieldRule | undefined, proof: Proof | undefined): string {
  if (proof?.words !== undefined) return proof.words;
  if (rule === undefined) return "";
  const reason = rule.reason ?? "";
  switch (rule.place) {
    case "guest":
      return "Honoured in the guest";
    case "host":
      return "Honoured on the host";
    case "both":
      return "Honoured in the guest and on the host";
    case "boundary":
      return `Subsumed: ${reason}`;
    case "ignored":
      return `Without effect: ${reason}`;
    case "refused":
      return `Refused: \`${field.startsWith(rule.field) ? rule.field : field}: ${reason}\``;
    case "judged":
      return "";
    default:
      return rule.place satisfies never;
  }
}
