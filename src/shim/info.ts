/** `-info`: what this runtime is, in containerd's message. */
import { RuntimeInfo } from "../gen/containerd/types/types.ts";

export async function info(): Promise<void> {
  const answer = RuntimeInfo.fromPartial({ name: "io.containerd.husk.v2", version: { version: "0.1.0", revision: "" } });
  process.stdout.write(RuntimeInfo.encode(answer).finish());
}
