/** `husk pool`: keeps sandboxes ready, which `husk run` and `husk create` take instead of making their own. */
import { type Config, loadConfig } from "../config/config.ts";
import { HuskError } from "../errors.ts";
import { comesTrue } from "../host/comes-true.ts";
import { isAlive, signalProcess } from "../host/process-identity.ts";
import { defaultSpec } from "../oci/default-spec.ts";
import { Pool, type PoolOptions, supervisorProgram } from "../pool/pool.ts";
import { isStandby, listPools, poolName, poolRoot } from "../pool/pool-folder.ts";
import { describeVm, machineKey, planVm } from "../sandbox/plan-vm.ts";
import type { Invocation } from "./command-line.ts";
import type { Log } from "./log.ts";
import { print, table } from "./output.ts";

/** Each costs some hundred MiB, and a process that waits. */
const mostSandboxes = 1000;

/** How long a pool may take to end what waits, in milliseconds. */
const stopWithinMs = 10_000;

export async function pool({ operands: [verb], flags }: Invocation<"pool">, log: Log): Promise<void> {
  const root = poolRoot(process.env);
  if (root === undefined) throw new HuskError("invalid-argument", "there is no folder for pools: HUSK_POOL names none");
  const isKeeping = verb === undefined;
  if (!isKeeping && (flags.size !== undefined || flags.vcpus !== undefined || flags.memory !== undefined || flags.images)) {
    throw new HuskError("invalid-argument", `pool ${verb} takes no flags`);
  }
  if (verb === "status") return status(root);
  if (verb === "stop") return await stop(root);
  if (!isKeeping) throw new HuskError("invalid-argument", `pool: expected status, stop or nothing, got ${JSON.stringify(verb)}`);
  const settings = {
    ...(flags.vcpus === undefined ? {} : { "vm.vcpus": { name: "--vcpus", text: flags.vcpus } }),
    ...(flags.memory === undefined ? {} : { "vm.memory": { name: "--memory", text: flags.memory } }),
  };
  const { config } = await loadConfig({ env: process.env, flags: settings });
  const texts = Object.fromEntries(Object.entries(settings).map(([key, { text }]) => [key, text]));
  await keep({ root, size: sizeOf(flags.size), shares: !flags.images, settings: texts }, config, log);
}

function sizeOf(size: number | undefined): number {
  if (size !== undefined && size >= 1 && size <= mostSandboxes) return size;
  throw new HuskError(
    "invalid-argument",
    `pool: expected --size N, from 1 to ${mostSandboxes}${size === undefined ? "" : `, got ${size}`}`,
  );
}

type Kept = Pick<PoolOptions, "root" | "size" | "shares" | "settings">;

async function keep({ root, size, shares, settings }: Kept, config: Config, log: Log): Promise<void> {
  const request = await describeVm(defaultSpec, config);
  // Made now, so that no member has to wait for another that makes it.
  const { notes } = await planVm(defaultSpec, config);
  for (const note of notes) log.info(note);
  const { image, vcpus, memoryBytes, accelerator, programs } = request.shape;
  const machine = `${image.flavour} kernel, ${vcpus} vCPU, ${memoryBytes / 1024 / 1024} MiB, ${accelerator}${shares ? "" : ", for images"}`;
  const key = machineKey(request, config);
  const name = poolName(key, shares);
  const pool = { root, name, key, shares, machine, size, settings, program: supervisorProgram };
  const opened = await Pool.open({ ...pool, helper: programs.helper, environment: process.env, warn: log.warning });
  const asked = new Promise<void>((resolve) => {
    for (const signal of ["SIGINT", "SIGTERM", "SIGHUP"] as const) process.on(signal, () => resolve());
  });
  const onFull = (): void => print(`${name}: ${size} of ${machine} ready\n`);
  try {
    await Promise.race([opened.run(onFull), asked]);
  } finally {
    await opened.stop();
  }
  process.exit(0); // what was taken goes on without us
}

function status(root: string): void {
  const pools = listPools(root).filter(({ alive }) => alive);
  const rows = pools.map(({ folder, record, ready }) => [
    folder.key,
    record?.machine ?? "",
    String(record?.size ?? ""),
    String(ready),
    String(record?.process.pid ?? ""),
  ]);
  print(table([["KEY", "MACHINE", "SIZE", "READY", "PID"], ...rows]));
}

/** Asks every pool that was asked for to end, and waits until they have. */
async function stop(root: string): Promise<void> {
  const kept = listPools(root).filter(({ folder }) => !isStandby(folder.key));
  const keepers = kept.flatMap(({ record, alive }) => (record !== undefined && alive ? [record.process] : []));
  for (const keeper of keepers) signalProcess(keeper, "SIGTERM");
  if (await comesTrue(() => !keepers.some(isAlive), stopWithinMs)) return;
  throw new HuskError("deadline", `the pool, process ${keepers.find(isAlive)?.pid}, does not end`);
}
