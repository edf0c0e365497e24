import { execFileSync } from "node:child_process";
import { join } from "node:path";
import { expect, test } from "vitest";

/** The fingerprints of those whom a Node with these flags trusts, having called `trustAsNodeDoes`. */
function trusted(...flags: readonly string[]): readonly string[] {
  const program = `
    import { X509Certificate } from "node:crypto";
    import { getCACertificates } from "node:tls";
    import { trustAsNodeDoes } from ${JSON.stringify(join(import.meta.dirname, "certificates.ts"))};
    trustAsNodeDoes();
    console.log(getCACertificates("default").map((text) => new X509Certificate(text).fingerprint256).join("\\n"));`;
  const words = [...flags, "--no-warnings", "--input-type=module-typescript", "--eval", program];
  return [...new Set(execFileSync(process.execPath, words, { encoding: "utf8" }).trim().split("\n"))].toSorted();
}

test("a supervisor trusts whom Node trusts by itself, whatever flag it was started with", () => {
  const usual = trusted();
  expect(usual.length).toBeGreaterThan(50);
  expect(trusted("--use-openssl-ca")).toEqual(usual);
});
