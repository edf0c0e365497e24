/** `husk features`: what is supported. */
import { featureReport } from "../oci/features.ts";
import { print } from "./output.ts";

export function features(): void {
  print(`${JSON.stringify(featureReport(), undefined, 4)}\n`);
}
