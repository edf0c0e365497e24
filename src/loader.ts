/**
 * What every program of dist/ begins with: runs NAME.program.js, with V8's code cache of it from NAME.cache, or NAME--FLAGS.cache where Node has flags. The
 * first runs leave the cache, each with what it needed besides, since only a run knows which functions are compiled in it; a start without takes half as long
 * again. They do so when they end by themselves, or say when before. https://nodejs.org/api/vm.html#scriptcreatecacheddata
 */
import type { EventEmitter } from "node:events";
import { readFileSync, renameSync, rmSync, statSync, writeFileSync } from "node:fs";
import { constants, Script } from "node:vm";
import { leaveCodeCache } from "./code-cache.ts";

const program = __filename.replace(/\.js$/, ".program.js");
/** One for each set of flags: V8 takes no other's. */
const cache = __filename.replace(/\.js$/, `${process.execArgv.join("").replaceAll(/[^\w-]/g, "")}.cache`);

/** So many runs add to a cache: one that fails early knows little, and one that is copied differs from one that is booted. */
const enoughRuns = 8;

interface Cache {
  readonly data: Buffer;
  /** Of how many runs it is: the file's last byte. */
  readonly runs: number;
}

/**
 * Of which program the cache is: its file, and when that was written; before the last byte. V8 itself goes by the length of the source alone, and a process that was
 * started before the programs were made anew leaves the cache of the old one beside the new one.
 */
const stampBytes = 16;
const stamp = stampOf(program);

/** The bundler writes ASCII alone: as Latin-1 it needs no decoding, and half of the memory. */
const source = readFileSync(program, "latin1");
const found = readCache();
const script = new Script(`(function(require,module,exports,__filename,__dirname){${source}\n})`, {
  filename: program,
  cachedData: found?.data,
  importModuleDynamically: constants.USE_MAIN_CONTEXT_DEFAULT_LOADER,
});
// Whoever has nothing left to do ends at once: by itself, Node would first take its heap apart, object by object.
process.once("beforeExit", () => process.exit());
// V8 rejects what another version of it, other flags or another source made.
const used = script.cachedDataRejected === false ? found : undefined;
if (used === undefined || used.runs < enoughRuns) {
  process.once("exit", writeCache);
  (process as EventEmitter).once(leaveCodeCache, () => {
    process.off("exit", writeCache);
    writeCache();
  });
}

type Program = (load: NodeJS.Require, self: NodeJS.Module, exported: unknown, file: string, folder: string) => void;
(script.runInThisContext() as Program)(require, module, exports, __filename, __dirname);

function stampOf(file: string): Buffer {
  const { ino, mtimeNs } = statSync(file, { bigint: true });
  const bytes = Buffer.alloc(stampBytes);
  bytes.writeBigUInt64LE(ino);
  bytes.writeBigInt64LE(mtimeNs, 8);
  return bytes;
}

function readCache(): Cache | undefined {
  try {
    const file = readFileSync(cache);
    if (!file.subarray(-1 - stampBytes, -1).equals(stamp)) return undefined;
    return { data: file.subarray(0, -1 - stampBytes), runs: file.at(-1) ?? 0 };
  } catch {
    return undefined; // there is none yet
  }
}

function writeCache(): void {
  const draft = `${cache}.${process.pid}`;
  try {
    const own = script.createCachedData();
    // V8 forgets functions that have not been called for long.
    const data = used === undefined || own.length > used.data.length ? own : used.data;
    writeFileSync(draft, Buffer.concat([data, stamp, Buffer.of((used?.runs ?? 0) + 1)]));
    renameSync(draft, cache); // whole, or not at all
  } catch {
    rmSync(draft, { force: true }); // a folder that is not ours to write: the next start is as slow as this one
  }
}
