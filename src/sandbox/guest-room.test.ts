import { expect, test } from "vitest";
import { defaultSpec } from "../oci/default-spec.ts";
import type { Resources } from "../oci/types.ts";
import { refuseBeyondMachine } from "./guest-room.ts";

const MIB = 1024 ** 2;

function judge(resources: Resources, annotations = {}) {
  return () => refuseBeyondMachine({ ...defaultSpec, annotations, linux: { ...defaultSpec.linux, resources } });
}

test("limits, which the machine grows with, and what Docker writes where nothing is asked", () => {
  expect(judge({})).not.toThrow();
  expect(judge({ memory: { limit: 1024n * BigInt(MIB) }, cpu: { quota: 100_000n, period: 100_000n, shares: 512n } })).not.toThrow();
  expect(judge({ blockIO: { weight: 0, weightDevice: [] }, cpu: { cpus: "", mems: "" } })).not.toThrow();
});

test("what acts on the whole machine is refused by name", () => {
  const reason = "it acts on the virtual machine, which is that of the container whose network namespace is named";
  expect(judge({ cpu: { cpus: "0" }, blockIO: { weight: 10 } })).toThrow(
    `config.json: linux.resources.cpu.cpus: ${reason}; linux.resources.blockIO: ${reason}`,
  );
  expect(judge({}, { "io.husk.vcpus": "3" })).toThrow(`config.json: annotations["io.husk.vcpus"]: ${reason}`);
});
