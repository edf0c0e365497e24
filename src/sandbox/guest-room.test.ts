import { expect, test } from "vitest";
import { defaultSpec } from "../oci/default-spec.ts";
import type { Resources } from "../oci/types.ts";
import { refuseBeyondMachine } from "./guest-room.ts";

const MIB = 1024 ** 2;
const size = { vcpus: 1, memoryBytes: 1152 * MIB };
const defaults = {
  vcpus: 1,
  memoryBytes: 1024 * MIB,
  guestOverheadBytes: 128 * MIB,
  hostOverheadBytes: 384 * MIB,
  hostCpus: 8,
  hostMemoryBytes: 64 * 1024 * MIB,
};

function judge(resources: Resources, annotations = {}) {
  return () => refuseBeyondMachine({ ...defaultSpec, annotations, linux: { ...defaultSpec.linux, resources } }, size, defaults);
}

test("limits that the machine has room for, and what Docker writes where nothing is asked", () => {
  expect(judge({})).not.toThrow();
  expect(judge({ memory: { limit: 1024n * BigInt(MIB) }, cpu: { quota: 100_000n, period: 100_000n, shares: 512n } })).not.toThrow();
  expect(judge({ blockIO: { weight: 0, weightDevice: [] }, cpu: { cpus: "", mems: "" } })).not.toThrow();
});

test("what only a larger machine could give is refused by name", () => {
  const hint = "give the first container in it the higher limit";
  expect(judge({ memory: { limit: 1025n * BigInt(MIB) } })).toThrow(
    expect.objectContaining({
      message: "linux.resources.memory.limit: it needs a virtual machine with 1154 MiB of memory, and this one was made with 1152 MiB",
      hint,
    }),
  );
  expect(judge({ cpu: { quota: 200_000n } })).toThrow(/^linux\.resources\.cpu\.quota: it needs a virtual machine with 2 processors/);
  expect(judge({}, { "io.husk.vcpus": "3" })).toThrow(/with 3 processors/);
});

test("what acts on the whole machine is refused by name", () => {
  const reason = "it acts on the virtual machine, which is that of the container whose network namespace is named";
  expect(judge({ cpu: { cpus: "0" }, blockIO: { weight: 10 } })).toThrow(
    `config.json: linux.resources.cpu.cpus: ${reason}; linux.resources.blockIO: ${reason}`,
  );
});
