/** What the shim says: on its standard error, which the front has joined to containerd's log of the bundle. */
import { writeSync } from "node:fs";
import type { Logger } from "../task/logger.ts";
import type { ShimCall } from "./arguments.ts";

/** Lines as logrus writes them, which containerd's own shims do. A reader that is away or slow loses lines, and holds up nobody. */
export function openShimLog({ id, namespace, debug }: ShimCall): Logger {
  const write = (level: "info" | "warning", message: string): void => {
    if (level === "info" && !debug) return;
    const line = { time: new Date().toISOString(), level, msg: message, id, namespace, runtime: "io.containerd.husk.v2" };
    try {
      writeSync(
        2,
        `${Object.entries(line)
          .map(([key, value]) => `${key}=${JSON.stringify(value)}`)
          .join(" ")}\n`,
      );
    } catch {
      // EAGAIN or EPIPE: there is nobody to tell
    }
  };
  return { info: (message) => write("info", message), warn: (message) => write("warning", message) };
}
