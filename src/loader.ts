/**
 * What every program of dist/ begins with: runs NAME.program.js, with V8's code cache of it from NAME.cache, or NAME--FLAGS.cache where Node has flags. The
 * first run that ends by itself leaves the cache, or says when before, since only a run knows which functions it needs compiled; a start without it takes half
 * as long again.
 * https://nodejs.org/api/vm.html#scriptcreatecacheddata
 */
import type { EventEmitter } from "node:events";
import { readFileSync, renameSync, rmSync, writeFileSync } from "node:fs";
import { constants, Script } from "node:vm";
import { leaveCodeCache } from "./code-cache.ts";

const program = __filename.replace(/\.js$/, ".program.js");
/** One for each set of flags: V8 takes no other's. */
const cache = __filename.replace(/\.js$/, `${process.execArgv.join("").replaceAll(/[^\w-]/g, "")}.cache`);

/** The bundler writes ASCII alone: as Latin-1 it needs no decoding, and half of the memory. */
const source = readFileSync(program, "latin1");
const script = new Script(`(function(require,module,exports,__filename,__dirname){${source}\n})`, {
  filename: program,
  cachedData: readCache(),
  importModuleDynamically: constants.USE_MAIN_CONTEXT_DEFAULT_LOADER,
});
// Whoever has nothing left to do ends at once: by itself, Node would first take its heap apart, object by object.
process.once("beforeExit", () => process.exit());
// V8 rejects what another version of it, other flags or another source made.
if (script.cachedDataRejected !== false) {
  process.once("exit", writeCache);
  (process as EventEmitter).once(leaveCodeCache, () => {
    process.off("exit", writeCache);
    writeCache();
  });
}

type Program = (load: NodeJS.Require, self: NodeJS.Module, exported: unknown, file: string, folder: string) => void;
(script.runInThisContext() as Program)(require, module, exports, __filename, __dirname);

function readCache(): Buffer | undefined {
  try {
    return readFileSync(cache);
  } catch {
    return undefined; // there is none yet
  }
}

function writeCache(): void {
  const draft = `${cache}.${process.pid}`;
  try {
    writeFileSync(draft, script.createCachedData());
    renameSync(draft, cache); // whole, or not at all
  } catch {
    rmSync(draft, { force: true }); // a folder that is not ours to write: the next start is as slow as this one
  }
}
