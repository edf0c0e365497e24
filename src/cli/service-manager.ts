/** What a service manager, such as systemd, hands a program by its environment (sd_notify(3), sd_listen_fds(3)): sockets, which stay on the host. */

/** What a container misses of what `env` promises the call; runc passes it on. */
export function missesOfService(env: Readonly<Record<string, string | undefined>>): string[] {
  const misses: string[] = [];
  if (env["NOTIFY_SOCKET"]) {
    misses.push("NOTIFY_SOCKET: the container cannot say that it is ready: a unix socket of the host cannot cross into a virtual machine");
  }
  if (Number(env["LISTEN_FDS"] ?? 0) > 0) {
    misses.push("LISTEN_FDS: the container does not get these sockets: open files of the host cannot be passed into a virtual machine");
  }
  return misses;
}
