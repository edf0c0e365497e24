/** Mounts in the host's mount namespace, made and taken away by the helper: Node has no mount(2). */
import { spawn } from "node:child_process";
import { HuskError } from "../errors.ts";
import { Tail } from "./tail.ts";

/** One mount as containerd's snapshotters name it: options are those of mount(8). */
export interface HostMount {
  readonly type: string;
  readonly source: string;
  readonly options: readonly string[];
  /** Relative to the target; "" is the target itself. */
  readonly target: string;
}

/** Stacks `mounts` in their order on the folder `target`. Throws `host`, with none of them left. */
export function mountAll(helper: string, target: string, mounts: readonly HostMount[]): Promise<void> {
  return call(helper, ["mount"], `cannot mount the root file system at ${target}`, JSON.stringify({ target, mounts }));
}

/** Takes away every mount at `target` and below it. None is no error. Throws `host`. */
export function unmountAll(helper: string, target: string): Promise<void> {
  return call(helper, ["unmount", "--target", target], `cannot unmount ${target}`, "");
}

function call(helper: string, args: readonly string[], failure: string, input: string): Promise<void> {
  return new Promise((resolve, reject) => {
    const child = spawn(helper, args, { stdio: ["pipe", "ignore", "pipe"] });
    const said = new Tail();
    child.stderr.on("data", (chunk: Buffer) => said.add(chunk));
    child.stdin.on("error", () => {}); // its end says why
    child.stdin.end(input);
    child.once("error", (cause) => reject(new HuskError("host", failure, { cause })));
    child.once("close", (code) => (code === 0 ? resolve() : reject(new HuskError("host", `${failure}: ${said.lines(3).join(" | ")}`))));
  });
}
