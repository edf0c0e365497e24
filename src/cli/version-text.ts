/** What husk is, in the form that runc's callers read: "NAME version X" first, then "spec: X". */

import { specVersion } from "../oci/features.ts";
import { version } from "../version.ts";

export { version } from "../version.ts";

/** Docker takes the name and the version from the one line that holds the word "version". */
export function versionText(): string {
  return `husk version ${version}\nspec: ${specVersion}\nnode: ${process.versions.node}\n`;
}
