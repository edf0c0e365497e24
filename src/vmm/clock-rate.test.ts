import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { expect, test } from "vitest";
import { clockParameters } from "./clock-rate.ts";

test("an emulated guest is told the rate, one with KVM is not", async () => {
  const folder = mkdtempSync(join(tmpdir(), "husk-tsc-"));
  const helper = (prints: string): string => {
    const path = join(folder, "helper");
    writeFileSync(path, `#!/bin/sh\necho ${prints}\n`, { mode: 0o755 });
    return path;
  };
  try {
    expect(await clockParameters(helper("2600123"), "tcg")).toEqual(["tsc_early_khz=2600123"]);
    await expect(clockParameters(helper("fast"), "tcg")).rejects.toMatchObject({ code: "internal" });
    expect(await clockParameters(join(folder, "absent"), "kvm")).toEqual([]);
  } finally {
    rmSync(folder, { recursive: true });
  }
});
