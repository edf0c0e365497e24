/** The configuration of tests on the emulated host with KVM. */
import type { Host } from "./host.ts";

/** Nothing but KVM will do, and an emulated host needs time. */
export function kvm(host: Host, channel: "vsock" | "serial" = "vsock"): { readonly env: Readonly<Record<string, string>> } {
  const deadlines = "[deadlines]\nboot_s = 300\ncall_s = 120\nstop_s = 30\n";
  const toml = `[vm]\naccel = "kvm"\nrequire_kvm = true\nchannel = "${channel}"\n${deadlines}`;
  return { env: host.configuration(toml) };
}
