import { expect, test } from "vitest";
import { missesOfService } from "./service-manager.ts";

test("a container misses the service manager's sockets, where there are any", () => {
  expect(missesOfService({ NOTIFY_SOCKET: "/run/systemd/notify", LISTEN_FDS: "2", LISTEN_PID: "7" })).toEqual([
    "NOTIFY_SOCKET: the container cannot say that it is ready: a unix socket of the host cannot cross into a virtual machine",
    "LISTEN_FDS: the container does not get these sockets: open files of the host cannot be passed into a virtual machine",
  ]);
  expect(missesOfService({ NOTIFY_SOCKET: "", LISTEN_FDS: "0", PATH: "/bin" })).toEqual([]);
});
