/**
 * The rehearsal: before a sandbox of the pool waits, it goes once the whole way that its taker's container will go, with a container that is thrown away. An
 * emulated processor translates each piece of code when it runs for the first time, which is most of what a start costs; so does V8, for this process.
 * Nothing of it may be left in the guest, which is looked at.
 */
import { execFile } from "node:child_process";
import { copyFileSync, mkdirSync, rmSync, truncateSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { PassThrough, Writable } from "node:stream";
import { text } from "node:stream/consumers";
import { promisify } from "node:util";
import type { Config } from "../config/config.ts";
import { HuskError } from "../errors.ts";
import { hasCode } from "../host/system-error.ts";
import { loadBundle } from "../oci/bundle.ts";
import { defaultSpec } from "../oci/default-spec.ts";
import { stringifyJson } from "../oci/json.ts";
import type { Spec } from "../oci/types.ts";
import { Container } from "../sandbox/container.ts";
import { planContainer } from "../sandbox/plan-container.ts";
import type { Sandbox } from "../sandbox/sandbox.ts";
import type { ImageDisk } from "../storage/container-storage.ts";

/** What the program says. */
const word = "rehearsed\n";

/** Makes the bundle: a root file system with one static program, the helper, that says a word and ends with its standard input. */
export function makeRehearsalBundle(folder: string, helper: string): void {
  makeRootfs(join(folder, "rootfs"), helper);
  writeConfig(folder, "rootfs");
}

/** The file systems that images are of, each with the program that makes one of a folder. The first is written to. */
const imageMakers: Readonly<Record<ImageKind, (image: string, folder: string) => readonly [string, ...string[]]>> = {
  ext4: (image, folder) => ["mkfs.ext4", "-q", "-F", "-d", folder, image],
  erofs: (image, folder) => ["mkfs.erofs", image, folder],
};

export type ImageKind = "ext4" | "erofs";

export const imageKinds: readonly ImageKind[] = ["ext4", "erofs"];

/** Likewise, with an image as root file system, `image` in the folder. False where this host has no program that makes one. Throws `host` where that fails. */
export async function makeImageBundle(folder: string, helper: string, kind: ImageKind): Promise<boolean> {
  const rootfs = join(folder, "contents");
  makeRootfs(rootfs, helper);
  const image = rehearsalDisk(folder, kind).path;
  const [program, ...words] = imageMakers[kind](image, rootfs);
  if (kind === "ext4") {
    writeFileSync(image, "");
    truncateSync(image, imageBytes);
  }
  try {
    await promisify(execFile)(program, words);
  } catch (cause) {
    if (hasCode(cause, "ENOENT")) return false;
    throw new HuskError("host", "cannot make an image to rehearse with", { cause });
  } finally {
    rmSync(rootfs, { recursive: true });
  }
  writeConfig(folder, "image", kind !== "ext4");
  return true;
}

/** The disk that `makeImageBundle` has made. */
export function rehearsalDisk(folder: string, kind: ImageKind): ImageDisk {
  return { serial: "root", path: join(folder, "image"), isDevice: false, readonly: kind !== "ext4" };
}

/** The helper has some two. */
const imageBytes = 16 * 1024 * 1024;

function makeRootfs(rootfs: string, helper: string): void {
  mkdirSync(rootfs, { recursive: true });
  copyFileSync(helper, join(rootfs, "program"));
  for (const name of ["proc", "dev", "run", "sys"]) mkdirSync(join(rootfs, name));
}

/** What engines allow of every container, as containerd's and Docker's specifications have it: the kernel checks and translates a program for it. */
const enginesDevices = [
  [1, 3],
  [1, 8],
  [1, 7],
  [5, 0],
  [1, 5],
  [1, 9],
  [5, 1],
  [136, undefined],
  [5, 2],
].map(([major, minor]) => ({ allow: true, type: "c", major, ...(minor === undefined ? {} : { minor }), access: "rwm" }));

function writeConfig(folder: string, path: string, readonly = false): void {
  const { process, mounts = [], linux } = defaultSpec;
  const spec: Spec = {
    ...defaultSpec,
    root: { path, readonly },
    process: { ...process, terminal: false, user: { uid: 0, gid: 0, additionalGids: [0] }, args: ["/program", "rehearsal"] },
    mounts: [
      ...mounts,
      { destination: "/run", type: "tmpfs", source: "tmpfs", options: ["nosuid", "strictatime", "mode=755", "size=65536k"] },
    ],
    linux: { ...linux, resources: { devices: [{ allow: false, access: "rwm" }, ...enginesDevices], cpu: { shares: 1024 } } },
  };
  writeFileSync(join(folder, "config.json"), stringifyJson(spec));
}

/** Goes the way `times` times, with the bundle in `folder`. Throws `guest` where it does not go as it should, or leaves something behind. */
export async function rehearse(sandbox: Sandbox, folder: string, allow: Config["allow"], times: number): Promise<void> {
  const before = await inventory(sandbox);
  for (let time = 0; time < times; time++) await once(sandbox, folder, allow);
  const after = await inventory(sandbox);
  const difference = [
    // A template's disk is there once the first container has taken it into use.
    ...after.filter((item) => !before.includes(item) && !/^file \/dev\/vd[a-z]$/.test(item)).map((item) => `+ ${item}`),
    ...before.filter((item) => !after.includes(item)).map((item) => `- ${item}`),
  ];
  if (difference.length > 0) throw new HuskError("guest", `the rehearsal has changed the guest: ${difference.slice(0, 8).join(", ")}`);
}

async function inventory({ agent }: Sandbox): Promise<readonly string[]> {
  const { items } = await agent.call("takeInventory", {});
  // The agent's own set-up process, of which one waits at any time.
  const waits = /^process \d+ (?=exe$)/;
  if (items.filter((item) => waits.test(item)).length !== 1)
    throw new HuskError("guest", "the guest has not one set-up process that waits");
  return items.map((item) => item.replace(waits, "process "));
}

async function once(sandbox: Sandbox, folder: string, allow: Config["allow"]): Promise<void> {
  const bundle = await loadBundle(folder);
  const plan = await planContainer(bundle, { id: "rehearsal", size: null, memory: new Map() }, allow);
  for (const shown of plan.shown) await sandbox.mount(shown);
  const ignored = (): void => {};
  const container = new Container(sandbox, plan.container, ignored, ignored);
  const { input, said, streams } = standardStreams();
  const { ended, flushed } = await container.create(streams);
  await container.start();
  await further(container, stringifyJson(bundle.spec.process));
  input.end();
  const { end, reason } = await ended;
  await flushed;
  const words = await said;
  if (!("code" in end) || end.code !== 0 || words !== word) {
    throw new HuskError("guest", `the rehearsal's program ended with ${JSON.stringify({ ...end, reason, said: words })}`);
  }
  await sandbox.agent.call("deleteContainer", { containerId: "rehearsal" });
  for (const shown of plan.shown) await sandbox.unmount(shown.target);
}

/** A further process in the container, as `husk exec` makes one. */
async function further(container: Container, processJson: string): Promise<void> {
  const { input, streams } = standardStreams();
  const process = await container.addProcess("further", {
    processJson,
    terminal: false,
    plainNewlines: false,
    size: null,
    ignorePaused: false,
    cgroup: "",
    streams: ["stdin", "stdout", "stderr"],
  });
  const ended = process.follow(streams);
  await process.start();
  input.end();
  await ended;
  await container.forgetProcess(process);
}

function standardStreams() {
  const input = new PassThrough();
  const output = new PassThrough();
  const nowhere = new Writable({ write: (_chunk, _encoding, done) => done() });
  return {
    input,
    said: text(output),
    streams: { stdin: Promise.resolve(input), stdout: Promise.resolve(output), stderr: Promise.resolve(nowhere) },
  };
}
