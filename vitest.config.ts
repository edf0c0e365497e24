import { resolve } from "node:path";
import { defineConfig } from "vitest/config";

/** What husk is run with, where neither a test nor whoever runs the tests says otherwise. */
const env = {
  HUSK_CONFIG: process.env["HUSK_CONFIG"] ?? resolve(import.meta.dirname, "test/fixtures/husk.toml"),
  // The host's own sandboxes that stand by are not the tests'.
  HUSK_POOL: "",
};

/** unit: no root, no VM. e2e: real VMs under whatever accelerator the host has. engines: likewise, by
 * way of Docker and Podman. kvm: run inside the project's KVM host. */
export default defineConfig({
  test: {
    projects: [
      // The bound is there for a test that hangs, and not for a machine that is slow.
      {
        test: {
          name: "unit",
          include: ["src/**/*.test.ts", "tools/**/*.test.ts", "bench/**/*.test.ts"],
          environment: "node",
          testTimeout: 60_000,
          hookTimeout: 60_000,
        },
      },
      {
        test: {
          name: "e2e",
          env,
          include: ["test/e2e/**/*.test.ts"],
          environment: "node",
          // Real VMs under emulation on two cores: files run one after another, and a test's bound is generous since nothing waits for it.
          fileParallelism: false,
          testTimeout: 180_000,
          hookTimeout: 180_000,
        },
      },
      {
        test: {
          name: "engines",
          env,
          include: ["test/engines/**/*.test.ts"],
          environment: "node",
          fileParallelism: false,
          testTimeout: 300_000,
          hookTimeout: 300_000,
        },
      },
      {
        test: {
          name: "kvm",
          env,
          include: ["test/kvm/**/*.test.ts"],
          environment: "node",
          fileParallelism: false,
          testTimeout: 600_000,
          hookTimeout: 600_000,
        },
      },
    ],
  },
});
