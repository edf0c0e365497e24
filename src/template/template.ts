/**
 * Templates: booted, paused machines, from which sandboxes are cloned instead of booted. The first sandbox of a shape makes the template it then uses;
 * whatever goes wrong with templates, sandboxes boot.
 */
import { dirname, join } from "node:path";
import { explain, HuskError } from "../errors.ts";
import { makeTemplate } from "./making.ts";
import { type TemplateShape, templateKey } from "./shape.ts";
import { type Room, type Template, TemplateStore } from "./store.ts";

/** The folder of templates: `configured`, unless that is "auto". */
export function templateFolder(configured: string, env: NodeJS.ProcessEnv, euid: number = process.geteuid?.() ?? 0): string {
  if (configured !== "auto") return configured;
  if (euid === 0) return "/var/lib/husk/templates";
  return join(env["XDG_CACHE_HOME"] || join(env["HOME"] ?? "/nonexistent", ".cache"), "husk", "templates");
}

export interface ObtainOptions {
  readonly store: TemplateStore;
  readonly room: Room;
  readonly deadlineMs: number;
}

/** What was found or made, or null; and what is worth a line in the log. */
export interface Obtained {
  readonly template: Template | null;
  /** When it was used before, in milliseconds since 1970; 0: never. */
  readonly usedBefore?: number;
  /** Whether it was made now, which takes its time. */
  readonly made: boolean;
  readonly notes: readonly string[];
}

/** The template that fits, made now where there is none. Never throws for a reason that leaves a sandbox able to boot: the note says it. */
export async function obtainTemplate(shape: TemplateShape, { store, room, deadlineMs }: ObtainOptions): Promise<Obtained> {
  const notes: string[] = [];
  try {
    const key = templateKey(shape);
    const found = findOrRemove(store, key, notes);
    if (found !== undefined) {
      const usedBefore = store.usedAt(found);
      store.touch(found);
      return { template: found, usedBefore, made: false, notes };
    }
    const began = performance.now();
    const claimed = store.hasRoom(room)
      ? store.claim(key)
      : { wait: "others in use take all the room (template.most, template.most_bytes)" };
    if ("wait" in claimed)
      return { template: null, made: false, notes: [...notes, `the VM boots instead of being cloned from a template: ${claimed.wait}`] };
    const template = await fill(store, key, shape, claimed.draft, deadlineMs);
    store.limit(room);
    const seconds = ((performance.now() - began) / 1000).toFixed(1);
    return { template, made: true, notes: [...notes, `made the template ${key} in ${seconds} s (${template.manifest.machine})`] };
  } catch (error) {
    return { template: null, made: false, notes: [...notes, `the VM boots instead of being cloned from a template: ${explain(error)}`] };
  }
}

async function fill(store: TemplateStore, key: string, shape: TemplateShape, draft: string, deadlineMs: number): Promise<Template> {
  try {
    return store.publish(key, draft, await makeTemplate(shape, draft, deadlineMs));
  } catch (error) {
    store.giveUp(key, draft, explain(error));
    throw error;
  }
}

/** A damaged template is removed, so that the next one can take its place. */
function findOrRemove(store: TemplateStore, key: string, notes: string[]): Template | undefined {
  try {
    return store.find(key);
  } catch (error) {
    if (!(error instanceof HuskError)) throw error;
    store.remove(key);
    notes.push(`${explain(error)}; it was removed`);
    return undefined;
  }
}

/** Removes a template that a clone could not be made of, so that the next sandbox makes it anew. */
export function discardTemplate(template: Template): void {
  new TemplateStore(dirname(template.folder)).remove(template.key);
}
