/** The configuration of tests on the emulated host with KVM. */
import type { Host } from "./host.ts";

/** Nothing but KVM will do, and an emulated host needs time. */
export function kvm(host: Host): { readonly env: Readonly<Record<string, string>> } {
  const toml = '[vm]\naccel = "kvm"\nrequire_kvm = true\nchannel = "vsock"\n[deadlines]\nboot_s = 300\ncall_s = 120\nstop_s = 30\n';
  return { env: host.configuration(toml) };
}
