import { expect, test } from "vitest";
import { chooseAccelerator, probeAccelerator } from "./accelerator.ts";

const usable = { kvmProblem: undefined, virtualization: true };
const lookalike = { kvmProblem: undefined, virtualization: false };
const absent = { kvmProblem: "there is no /dev/kvm", virtualization: false };

test("KVM is taken where it works", () => {
  expect(chooseAccelerator("auto", false, usable).accelerator).toBe("kvm");
});

test("a /dev/kvm without virtualization in the processor is not believed", () => {
  expect(chooseAccelerator("auto", false, lookalike)).toEqual({
    accelerator: "tcg",
    reason:
      "TCG, since the processor shows neither vmx nor svm; QEMU promises isolation between guest and host under KVM, not under TCG (software emulation)",
  });
});

test("an explicit choice is obeyed", () => {
  expect(chooseAccelerator("kvm", false, lookalike).accelerator).toBe("kvm");
  expect(chooseAccelerator("tcg", false, usable).accelerator).toBe("tcg");
});

test("kvm without /dev/kvm is refused", () => {
  expect(() => chooseAccelerator("kvm", false, absent)).toThrow("accel is kvm, which cannot be used: there is no /dev/kvm");
});

test.each([
  ["auto", lookalike, "require_kvm is set and KVM cannot be used: the processor shows neither vmx nor svm"],
  ["tcg", usable, "require_kvm is set and KVM cannot be used: accel is tcg"],
] as const)("require_kvm with %s refuses to run without", (requested, probe, message) => {
  expect(() => chooseAccelerator(requested, true, probe)).toThrow(message);
});

test("the probe reads the flags and opens the device", () => {
  const probe = probeAccelerator(
    () => "processor: 0\nflags\t\t: fpu vme svm sse\n",
    () => {
      throw Object.assign(new Error("no"), { code: "EACCES" });
    },
  );
  expect(probe).toEqual({ kvmProblem: "/dev/kvm cannot be opened (EACCES)", virtualization: true });
});
