'use strict';

/*
 * Starts a command from its bundle: one file, as finding and loading a hundred takes longer than all
 * that they do until the disk is mounted. Beside it lies what V8 made of it when the package was built
 * (scripts/code-cache.ts); another version of V8 refuses that, and compiles anew.
 */

const { existsSync, readFileSync } = require('node:fs');
const { createRequire } = require('node:module');
const { dirname, join } = require('node:path');
const { Script } = require('node:vm');

const BUNDLES = join(__dirname, '..', 'dist', 'bundle');
const WRAPPER = ['(function (exports, require, module, __filename, __dirname) {', '\n})'];

/** @returns {{ script: Script, run: () => void, cacheFile: string }} */
function load(name) {
  const filename = join(BUNDLES, `${name}.cjs`);
  const cacheFile = join(BUNDLES, `${name}.cache`);
  const source = WRAPPER.join(readFileSync(filename, 'utf8'));
  const cachedData = existsSync(cacheFile) ? readFileSync(cacheFile) : undefined;
  const script = new Script(source, { filename, cachedData });
  const run = () => {
    const module = { exports: {} };
    const start = script.runInThisContext();
    start(module.exports, createRequire(filename), module, filename, dirname(filename));
  };
  return { script, run, cacheFile };
}

function launch(name) {
  if (!existsSync(join(BUNDLES, `${name}.cjs`))) {
    console.error(`${name}: not built yet; run "npm run build" in the folder of the package`);
    process.exitCode = 1;
    return;
  }
  try {
    load(name).run();
  } catch (error) {
    if (error?.code !== 'EMFILE' && error?.code !== 'ENFILE') throw error;
    console.error(`${name}: too many open files; allow more with: ulimit -n 1024`);
    process.exitCode = 1;
  }
}

module.exports = { launch, load };
