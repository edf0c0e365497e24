/** Writes docs/conformance.md. */
import { mkdirSync, writeFileSync } from "node:fs";
import { conformanceTable } from "./conformance/table.ts";

const folder = new URL("../docs/", import.meta.url);
mkdirSync(folder, { recursive: true });
writeFileSync(new URL("conformance.md", folder), conformanceTable());
