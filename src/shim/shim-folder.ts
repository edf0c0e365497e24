/** Where a shim keeps what is its own: a folder named after its socket, so that whoever cleans up after it finds the folder by the socket's address. */
import { createHash } from "node:crypto";
import { join } from "node:path";

const shimFolders = "/run/husk-shim";

/** The run folder of the shim that listens at `address` (unix:///path, or a path). */
export function shimFolder(address: string): string {
  const path = address.replace(/^unix:\/\//, "");
  return join(shimFolders, createHash("sha256").update(path).digest("hex").slice(0, 32));
}
