/** `husk doctor`. */
import { type Config, loadConfig } from "../config/config.ts";
import { explain, HuskError } from "../errors.ts";
import { helperPath, installationFolder } from "../host/installation.ts";
import type { Invocation } from "./command-line.ts";
import * as checks from "./doctor-checks.ts";
import { type HostView, thisHost } from "./host-view.ts";
import { print } from "./output.ts";

/** Answers 1 where husk cannot run containers. */
export async function doctor({ globals, flags }: Invocation<"doctor">, host: HostView = thisHost): Promise<number> {
  const format = flags.format ?? "table";
  if (format !== "table" && format !== "json") {
    throw new HuskError("invalid-argument", `--format: expected table or json, got ${JSON.stringify(format)}`);
  }
  const [configuration, config] = await checkConfiguration(host);
  const probe = checks.probeHost(host);
  const [qemu, virtiofsd, rust] = await Promise.all([
    checks.checkQemu(host, config),
    checks.checkVirtiofsd(host, config),
    checks.checkRust(host),
  ]);
  const found = [
    checks.checkSystem(host),
    configuration,
    checks.checkRights(host),
    checks.checkNamespaces(host),
    checks.checkKvm(probe),
    checks.checkAccelerator(probe, config),
    qemu,
    virtiofsd,
    checks.checkHelper(host, helperPath()),
    checks.checkGuestImages(host, config, installationFolder()),
    checks.checkDevice(host, "/dev/vhost-vsock", "the guest's agent is reached by a virtio-serial port", "vhost_vsock"),
    checks.checkDevice(host, "/dev/vhost-net", "QEMU moves the packets itself, more slowly", "vhost_net"),
    checks.checkDevice(host, "/dev/net/tun", "a container cannot have a network", "tun"),
    checks.checkCgroups(host),
    checks.checkMemory(host, config),
    checks.checkDisk(host, globals.root),
    checks.checkNode(host),
    rust,
  ];
  print(format === "json" ? jsonReport(found) : textReport(found));
  return canRun(found) ? 0 : 1;
}

/** The configuration in force; the defaults where it cannot be read, for the other checks' sake. */
async function checkConfiguration({ env }: HostView): Promise<readonly [checks.Check, Config]> {
  const name = "configuration";
  try {
    const { config, sources } = await loadConfig({ env });
    const files = [...new Set(sources.values())].filter((source) => source !== "default");
    return [{ name, status: "ok", found: files.length === 0 ? "the defaults" : files.join(", ") }, config];
  } catch (error) {
    const { config } = await loadConfig({ env: {}, files: { readText: () => undefined, list: () => [] } });
    return [{ name, status: "fail", found: explain(error), mend: "correct the file" }, config];
  }
}

function canRun(found: readonly checks.Check[]): boolean {
  return found.every(({ status }) => status !== "fail");
}

function jsonReport(found: readonly checks.Check[]): string {
  return `${JSON.stringify({ canRun: canRun(found), isolation: checks.isolationNote(found) ?? null, checks: found }, undefined, 2)}\n`;
}

/** One line a check, with how to mend it below, and the verdict at the end. */
export function textReport(found: readonly checks.Check[]): string {
  const width = Math.max(...found.map(({ name }) => name.length));
  const lines = found.flatMap(({ name, status, found: what, mend }) => [
    `${status.padEnd(4)}  ${name.padEnd(width)}  ${what}`,
    ...(mend === undefined ? [] : [`${" ".repeat(width + 8)}↳ ${mend}`]),
  ]);
  const failed = found.filter(({ status }) => status === "fail").map(({ name }) => name);
  const verdict = failed.length === 0 ? "husk can run containers here." : `husk cannot run containers here: ${failed.join(", ")}.`;
  const note = checks.isolationNote(found);
  return `${[...lines, ...(note === undefined ? [] : ["", note]), "", verdict].join("\n")}\n`;
}
