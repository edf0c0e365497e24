import { appendFileSync, chmodSync, existsSync, mkdtempSync, readdirSync, rmSync, utimesSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, expect, test } from "vitest";
import { changeTime, diskBytes, hashState, type Manifest, type Template, TemplateStore } from "./store.ts";

const key = "0123456789abcdef0123456789abcdef";
const other = "f".repeat(32);

let folder: string;
let store: TemplateStore;
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), "husk-store-"));
  chmodSync(folder, 0o700);
  store = new TemplateStore(folder);
});
afterEach(() => rmSync(folder, { recursive: true }));

function claim(name = key): string {
  const claimed = store.claim(name);
  if ("wait" in claimed) throw new Error(claimed.wait);
  return claimed.draft;
}

/** A finished draft's manifest. */
function fill(draft: string): Manifest {
  const [ram, state] = [join(draft, "ram"), join(draft, "state")];
  writeFileSync(ram, "memory");
  writeFileSync(state, "state");
  return {
    machine: "a machine",
    createdAt: new Date().toISOString(),
    ramBytes: 6,
    ramChanged: changeTime(ram),
    ramSum: "00000000",
    stateSha256: hashState(state),
  };
}

function make(name = key): Template {
  const draft = claim(name);
  return store.publish(name, draft, fill(draft));
}

test("a template is found as it was published, and is nowhere before", () => {
  expect(store.find(key)).toBeUndefined();
  const draft = claim();
  const manifest = fill(draft);
  expect(store.find(key)).toBeUndefined();
  const template = store.publish(key, draft, manifest);
  expect(store.find(key)).toEqual(template);
  expect(readdirSync(folder)).toEqual([key]);
});

test.each<[string, (template: Template) => void, string]>([
  ["cut off", ({ ram }) => writeFileSync(ram, "mem"), "its RAM has 3 bytes, not 6"],
  ["written to", ({ ram }) => utimesSync(ram, 1, 1), "its RAM was written to"],
  ["with another state", ({ state }) => appendFileSync(state, "!"), "its state was changed"],
  ["without a state", ({ state }) => rmSync(state), "no such file"],
  ["without a manifest", ({ folder: own }) => rmSync(join(own, "template.json")), "no such file"],
  ["with half a manifest", ({ folder: own }) => writeFileSync(join(own, "template.json"), '{"machine":'), "JSON"],
])("a template that is %s is an error, and can be made anew", (_, damage, why) => {
  damage(make());
  expect(() => store.find(key)).toThrow(expect.objectContaining({ message: `the template ${key} cannot be used` }));
  expect(() => store.find(key)).toThrow(
    expect.objectContaining({ cause: expect.objectContaining({ message: expect.stringContaining(why) }) }),
  );
  expect(store.list()).toMatchObject({ templates: [], damaged: [{ code: "host" }] });
  make();
  expect(store.find(key)).toBeDefined();
});

test("templates that others can write are not used", () => {
  make();
  chmodSync(folder, 0o777);
  expect(() => store.find(key)).toThrow(`${folder} can be written to by others, so its templates are not used`);
  expect(() => new TemplateStore(folder, 12345).find(key)).toThrow("can be written to by others");
});

test("one at a time makes a template; others are told who", () => {
  const draft = claim();
  expect(store.claim(key)).toEqual({ wait: `process ${process.pid} is making it` });
  expect(store.claim(other)).toHaveProperty("draft");
  store.publish(key, draft, fill(draft));
  expect(claim()).toBe(draft);
});

test("who died while making a template is followed by the next, and what he left is known", () => {
  const draft = claim();
  expect(store.leftovers()).toEqual([]);
  writeFileSync(join(draft, "owner.json"), JSON.stringify({ pid: process.pid, start: 1 }));
  writeFileSync(join(draft, "ram"), "half");
  expect(store.leftovers()).toEqual([draft]);
  expect(claim()).toBe(draft);
  expect(readdirSync(draft)).toEqual(["owner.json"]);
});

test("an attempt that failed is not repeated at once, unless that is asked for", () => {
  store.giveUp(key, claim(), "no space");
  expect(store.claim(key)).toEqual({ wait: "making it failed lately: no space" });
  expect(store.claim(key, true)).toHaveProperty("draft");
});

test("an old failure is forgotten", () => {
  store.giveUp(key, claim(), "no space");
  utimesSync(join(folder, `${key}.failed`), 1, 1);
  expect(store.claim(key)).toHaveProperty("draft");
});

const much = 1024 ** 3;

/** Makes as if a template had been used last at that time: seconds since 1970. */
function usedAt({ folder: own }: Template, seconds: number): void {
  utimesSync(join(own, "template.json"), seconds, seconds);
}

test("the templates used last are kept", () => {
  const [first, second] = [make(key), make(other)];
  usedAt(first, 10);
  usedAt(second, 20);
  store.touch(first);
  expect(store.list().templates.map((template) => template.key)).toEqual([key, other]);
  store.limit({ most: 1, mostBytes: much });
  expect(existsSync(second.folder)).toBe(false);
  expect(store.find(key)).toEqual(first);
});

test("no more than so many bytes are kept, as the disk counts them", () => {
  const [first, second, third] = [make(key), make(other), make("e".repeat(32))];
  const [oldest, older] = [first, second];
  usedAt(oldest, 10);
  usedAt(older, 20);
  const each = diskBytes(first);
  expect(each).toBeGreaterThan(0);
  store.limit({ most: 10, mostBytes: 3 * each });
  expect(store.keys()).toHaveLength(3);
  store.limit({ most: 10, mostBytes: 2 * each });
  expect(store.keys().toSorted()).toEqual([third.key, second.key].toSorted());
});

test("one that was used lately stays: somebody may be about to read it", () => {
  make(key);
  make(other);
  store.limit({ most: 1, mostBytes: 1 });
  expect(store.keys()).toHaveLength(2);
});

test("there is room for another as long as none in use would have to go", () => {
  const first = make();
  const room = (most: number, mostBytes = much): boolean => store.hasRoom({ most, mostBytes });
  expect([room(2), room(1), room(2, diskBytes(first)), room(2, diskBytes(first) + 1)]).toEqual([true, false, false, true]);
  usedAt(first, 10);
  expect([room(1), room(2, 1)]).toEqual([true, true]);
});

test("whose a template is, is kept with it; those of before there were tenants are nobody's", () => {
  const draft = claim();
  store.publish(key, draft, { ...fill(draft), tenant: "name:acme" });
  make(other);
  expect(store.find(key)?.manifest.tenant).toBe("name:acme");
  expect(store.find(other)?.manifest.tenant).toBeUndefined();
});

test("a template is removed as a whole; one that is not there is no error", () => {
  make();
  expect(store.remove(key)).toBe(true);
  expect(readdirSync(folder)).toEqual([]);
  expect(store.remove(key)).toBe(false);
});

test("a folder that does not exist has no templates", () => {
  const nowhere = new TemplateStore(join(folder, "nowhere"));
  expect([nowhere.find(key), nowhere.list().templates, nowhere.leftovers()]).toEqual([undefined, [], []]);
});
