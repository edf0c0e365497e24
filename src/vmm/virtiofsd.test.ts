import { expect, test } from "vitest";
import { identifyVirtiofsd, kindFromVersion, virtiofsdArguments } from "./virtiofsd.ts";

test("each program is known by what it says of itself", () => {
  expect(kindFromVersion("virtiofsd version 7.2.22 (Debian 1:7.2)\nusing FUSE kernel interface version 7.36\n")).toBe("c");
  expect(kindFromVersion("virtiofsd 1.14.0\n")).toBe("rust");
});

test("a program that does not run is named", async () => {
  await expect(identifyVirtiofsd("/no/such/virtiofsd")).rejects.toThrow("cannot run /no/such/virtiofsd");
});

test.each(["c", "rust", "husk"] as const)(
  "the %s program stays in the folder, listens on the descriptor and announces submounts",
  (kind) => {
    const words = virtiofsdArguments(kind, "/shared", 7).join(" ");
    for (const word of [/--fd=7\b/, /(source|--shared-dir)=\/shared\b/, /sandbox=chroot/, /announce.submounts/])
      expect(words).toMatch(word);
  },
);

test("husk's own alone is told to hand over what it knows, and what another one knew", () => {
  for (const kind of ["c", "rust"] as const) expect(virtiofsdArguments(kind, "/shared", 7).join(" ")).not.toContain("--hand-over");
  expect(virtiofsdArguments("husk", "/shared", 7)).toContain("--hand-over");
  expect(virtiofsdArguments("husk", "/shared", 7).join(" ")).not.toContain("--state-fd");
  expect(virtiofsdArguments("husk", "/shared", 7, 16)).toContain("--state-fd=16");
});
