/** Waits for something to appear in a folder. */
import { type FSWatcher, watch } from "node:fs";
import { deferred } from "./deferred.ts";

export class FolderWatch implements Disposable {
  readonly #watcher: FSWatcher | undefined;
  #changed = deferred<void>();

  /** Watches for files of these names. A host that can watch no more folders (inotify(7)) leaves it blind: `next` waits as long as it may. */
  constructor(folder: string, names: readonly string[]) {
    try {
      this.#watcher = watch(folder, (_event, file) => {
        if (file !== null && names.includes(file)) this.#changed.resolve();
      });
      this.#watcher.on("error", () => {}); // the folder is gone, and nothing will appear in it
    } catch {
      this.#watcher = undefined;
    }
  }

  /** Resolves when such a file has appeared or changed since the last call, after `withinMs`, or where `signal` aborts. */
  async next(withinMs: number, signal: AbortSignal): Promise<void> {
    if (signal.aborted) return;
    const over = deferred<void>();
    const end = (): void => over.resolve();
    const timer = setTimeout(end, withinMs);
    signal.addEventListener("abort", end);
    try {
      await Promise.race([this.#changed.promise, over.promise]);
    } finally {
      clearTimeout(timer);
      signal.removeEventListener("abort", end);
      this.#changed = deferred();
    }
  }

  [Symbol.dispose](): void {
    this.#watcher?.close();
  }
}
