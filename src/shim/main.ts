/**
 * containerd-shim-husk-v2, behind its front (guest-agent/helper/PROTOCOL.md, "shim"): `serve` is a sandbox's server, started with its listening socket as
 * descriptor 3, or stands by for one as a member of a pool; `delete` cleans up after one; `info` says what this runtime is.
 */
import { explain } from "../errors.ts";
import { poolMember } from "../pool/messages.ts";
import { parseShim } from "./arguments.ts";

async function main(): Promise<void> {
  if (process.argv[2] === poolMember) return (await import("./standby.ts")).serveStandby(process.argv.slice(3));
  const call = parseShim(process.argv.slice(2));
  switch (call.action) {
    case "serve":
      return (await import("./serve.ts")).serve(call);
    case "delete":
      return (await import("./delete.ts")).deleteShim(call);
    case "info":
      return (await import("./info.ts")).info();
    default:
      call.action satisfies never;
  }
}

main().catch((error: unknown) => {
  process.stderr.write(`containerd-shim-husk-v2: ${explain(error)}\n`);
  process.exitCode = 1;
});
