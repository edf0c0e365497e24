/** The table of the runtime specification's fields has no hole: no field without a treatment and a test, no test that is not there, no row about nothing. */
import { readFileSync } from "node:fs";
import { expect, test } from "vitest";
import { fieldRules } from "../../src/oci/support.ts";
import { proofs } from "./proofs.ts";
import { schemaFields } from "./schema-fields.ts";
import { conformanceTable, nearest, rows, treatment } from "./table.ts";

const root = new URL("../../", import.meta.url);

test("the schema is read whole: its sections, lists, maps and references", () => {
  const fields = schemaFields();
  expect(fields.length).toBeGreaterThan(170);
  expect(fields).toEqual(
    expect.arrayContaining([
      "process.user.additionalGids",
      "mounts[].uidMappings[].hostID",
      "linux.resources.blockIO.throttleReadBpsDevice[].rate",
      "linux.resources.unified",
      "linux.seccomp.syscalls[].args[].valueTwo",
      "linux.timeOffsets.boottime.secs",
      "vm.hypervisor.path",
      "windows",
    ]),
  );
});

test("every field has a treatment, and a test that proves it", () => {
  const holes = rows().filter(
    ({ field, rule, proof }) => rule === undefined || proof === undefined || treatment(field, rule, proof) === "",
  );
  expect(holes.map(({ field }) => field)).toEqual([]);
});

test("every refusal has a reason", () => {
  expect(rows().filter(({ field, rule, proof }) => treatment(field, rule, proof).endsWith(" `"))).toEqual([]);
});

test("every test that is named is there", () => {
  const missing = proofs.filter(({ file, test }) => !readFileSync(new URL(file, root), "utf8").includes(`"${test}`));
  expect(missing.map(({ file, test }) => `${file}: ${test}`)).toEqual([]);
});

test("no rule and no proof is about a field that the specification does not have", () => {
  const fields = schemaFields();
  const known = (field: string): boolean => fields.some((each) => nearest([{ field }], each) !== undefined);
  const unknown = [...fieldRules.filter(({ check }) => check === undefined), ...proofs]
    .map(({ field }) => field)
    .filter((field) => !known(field));
  expect(unknown).toEqual([]);
});

test("docs/conformance.md is up to date (node tools/conformance.ts)", () => {
  expect(readFileSync(new URL("docs/conformance.md", root), "utf8")).toBe(conformanceTable());
});
