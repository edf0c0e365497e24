/** husk's own annotations; each needs the administrator's allowance. */
export const ownAnnotations = {
  /** How many vCPUs the virtual machine has, as a decimal number. */
  vcpus: "io.husk.vcpus",
  /** How much memory the virtual machine has for the container, as in the configuration: "512MiB". */
  memory: "io.husk.memory",
  /** Whose templates the virtual machine may be cloned from. */
  tenant: "io.husk.tenant",
} as const;
