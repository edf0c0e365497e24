import { describe, expect, it } from "vitest";
import { bashScript } from "./completion.ts";
import { helpText } from "./help.ts";
import { verbNames, verbs } from "./verbs.ts";

describe("help", () => {
  it("lists every verb", () => {
    const text = helpText(undefined);
    for (const name of verbNames) expect(text).toContain(`\n  ${name} `);
  });

  it.each(verbNames)("of %s has its usage, every flag and an example", (name) => {
    const text = helpText(name);
    expect(text).toContain(`husk ${name} - ${verbs[name].summary}`);
    expect(text).toContain(`Usage: husk [global flags] ${name} [flags]`);
    for (const flag of Object.keys(verbs[name].flags)) expect(text).toContain(`--${flag}`);
    expect(text).toMatch(new RegExp(`Examples:\n.*husk .*${name}`, "s"));
  });

  it("fits on a terminal of 120 columns", () => {
    const lines = [undefined, ...verbNames].flatMap((name) => helpText(name).split("\n"));
    expect(lines.filter((line) => line.length > 120)).toEqual([]);
  });

  it("shows how flags are written", () => {
    expect(helpText("delete")).toContain("\n  -f, --force  kill it first where it has not ended; an unknown one is no error\n");
    expect(helpText("run")).toContain("\n      --pid-file FILE ");
  });
});

describe("completion", () => {
  it("offers each verb's flags", () => {
    const script = bashScript();
    expect(script).toContain(`    delete) flags="--force" ;;`);
    expect(script).toContain(`    kill) flags="--all" ;;`);
  });
});
