import { expect, test } from "vitest";
import { defaultConfigJson, defaultSpec } from "./default-spec.ts";
import { judge } from "./support.ts";
import { parseSpec } from "./validate.ts";

test("the default is valid, and husk honours all of it", () => {
  expect(parseSpec(defaultConfigJson())).toEqual({ value: defaultSpec, unknown: [] });
  expect(judge(defaultSpec, { bundle: "/b", sources: new Map() })).toEqual([]);
});

test("it is written as runc writes it", () => {
  expect(defaultConfigJson()).toMatch(/^\{\n\t"ociVersion": "1\.2\.0",\n\t"process": \{\n\t\t"terminal": true,\n/);
  expect(defaultConfigJson()).toMatch(/\n\}\n$/);
});
