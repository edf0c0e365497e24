/** Where husk's own files are, seen from the program that runs: dist/husk.js, or src/cli/main.ts in a checkout. */
import { dirname, join, resolve } from "node:path";

/** The folder that holds dist/, guest/ and the helper. */
export function installationFolder(program: string = process.argv[1] ?? ""): string {
  const folder = dirname(resolve(program));
  return folder.endsWith(join("src", "cli")) ? resolve(folder, "../..") : dirname(folder);
}

/** The helper program. */
export function helperPath(program?: string): string {
  return join(installationFolder(program), "guest-agent/target/release/husk-helper");
}
