/** Mounts in the host's mount namespace, made and taken away by the helper: Node has no mount(2). */
import { callHelper } from "./helper-call.ts";

/** One mount as containerd's snapshotters name it: options are those of mount(8). */
export interface HostMount {
  readonly type: string;
  readonly source: string;
  readonly options: readonly string[];
  /** Relative to the target; "" is the target itself. */
  readonly target: string;
}

/** Stacks `mounts` in their order on the folder `target`. Throws `host`, with none of them left. */
export async function mountAll(helper: string, target: string, mounts: readonly HostMount[]): Promise<void> {
  const input = JSON.stringify({ target, mounts });
  await callHelper(helper, { args: ["mount"], input, failure: `cannot mount the root file system at ${target}` });
}

/** Takes away every mount at `target` and below it. None is no error. Throws `host`. */
export async function unmountAll(helper: string, target: string): Promise<void> {
  await callHelper(helper, { args: ["unmount", "--target", target], input: "", failure: `cannot unmount ${target}` });
}
