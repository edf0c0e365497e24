/**
 * Bundles the programs: one file each, so that a start of Node reads one file. CommonJS, because the bundle of grpc-js is,
 * and because V8's code cache wants a plain script.
 */
import { chmod, mkdir, readdir, rename, rm, writeFile } from "node:fs/promises";
import { build, type Plugin } from "esbuild";

const programs = { husk: "src/cli/main.ts", supervisor: "src/cli/supervisor.ts", shim: "src/shim/main.ts" };

/** OpenTelemetry's exporter is a bundle of its own: few processes load it, and the others need not read it. */
const apart: Plugin = {
  name: "apart",
  setup: ({ onResolve }) => {
    onResolve({ filter: /^\.\/otlp\.ts$/ }, ({ kind }) => (kind === "dynamic-import" ? { path: "./otlp.js", external: true } : undefined));
  },
};

const staging = `dist.${process.pid}`;
await rm(staging, { recursive: true, force: true });
await mkdir(staging);
const options = {
  bundle: true,
  platform: "node",
  target: "node24",
  format: "cjs",
  minifySyntax: true,
  minifyWhitespace: true,
  keepNames: false,
  legalComments: "none",
  logLevel: "warning",
} as const;
for (const [name, entry] of Object.entries(programs)) {
  await build({ ...options, plugins: [apart], entryPoints: [entry], outfile: `${staging}/${name}.program.js` });
  await build({ ...options, entryPoints: ["src/loader.ts"], outfile: `${staging}/${name}.js` });
}
await build({ ...options, entryPoints: ["src/telemetry/otlp.ts"], outfile: `${staging}/otlp.js` });
// The repository's package.json says "module"; the bundles are CommonJS.
await writeFile(`${staging}/package.json`, '{ "type": "commonjs" }\n');
for (const name of await readdir(staging)) await chmod(`${staging}/${name}`, 0o644);
await rm("dist", { recursive: true, force: true });
await rename(staging, "dist");
