/** The one virtio-fs share of a sandbox: a template has its device as its clones will, so that they need not have it plugged in. */
import type { SandboxProgram } from "../host/sandbox-plan.ts";
import type { SharedFolder } from "../vmm/machine.ts";
import { type VirtiofsdKind, virtiofsdArguments } from "../vmm/virtiofsd.ts";

/** The device's tag, and where QEMU finds the server, in the sandbox's tree. */
export const share: SharedFolder = { tag: "husk", socket: "/run/shares.sock" };

/** The programs that serve it, of which the second is for a kind of the first. */
export interface SharePrograms {
  readonly virtiofsd: string;
  readonly virtiofsdKind: VirtiofsdKind;
}

/** The name of its server among a sandbox's programs. */
export const folderServer = "virtiofsd";

/** Its server in a sandbox's plan, which listens at `descriptor`. `before`: where it reads what a checkpoint says of the guest's files. */
export function shareServer({ virtiofsd, virtiofsdKind }: SharePrograms, descriptor: number, before?: number): SandboxProgram {
  return {
    name: folderServer,
    argv: [virtiofsd, ...virtiofsdArguments(virtiofsdKind, "/shared", descriptor, before)],
    user: "root",
    fds: before === undefined ? [] : [before],
    socket: share.socket,
    socketFd: descriptor,
  };
}
