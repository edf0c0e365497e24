/** Where a shim keeps what is its own: a folder named after its socket, so that whoever cleans up after it finds the folder by the socket's address. */
import { createHash } from "node:crypto";
import { join } from "node:path";

const shimFolders = "/run/husk-shim";

/** The path of the socket at `address` (unix:///path, or a path). */
export function socketPath(address: string): string {
  return address.replace(/^unix:\/\//, "");
}

/** The run folder of the shim that listens at `address`. */
export function shimFolder(address: string): string {
  return join(shimFolders, createHash("sha256").update(socketPath(address)).digest("hex").slice(0, 32));
}
