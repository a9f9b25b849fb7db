'use strict';

/*
 * Starts a command from its bundle: one file, as finding and loading a hundred takes longer than all
 * that they do until the disk is mounted. Beside it lies what V8 made of it when the package was built
 * (scripts/code-cache.ts), for that very build of Node.js; any other compiles anew.
 */

// To Node this signal means to open a port, by which every user of the machine could run what he likes as us. It is
// sent for a summary (src/cli/summary-signal.ts), and may come to who has none to give. Before this line it opens
// nothing, since the shell names an address for the port that no machine has (RFC 1112, section 4).
process.on('SIGUSR1', () => undefined);

const { existsSync, readFileSync, statSync } = require('node:fs');
const { dirname, join } = require('node:path');
const { Script } = require('node:vm');

const BUNDLES = join(__dirname, '..', 'dist', 'bundle');

/**
 * V8 refuses what another version of it has made, but not what its own version has made for another processor,
 * or in a Node.js that was configured in another way: it crashes on that. The size tells builds apart.
 */
function cacheFileOf(name) {
  const { version, arch, execPath } = process;
  return join(BUNDLES, `${name}-${version}-${arch}-${statSync(execPath).size}.cache`);
}

/** @returns {{ script: Script, run: () => void, cacheFile: string }} */
function load(name) {
  const filename = join(BUNDLES, `${name}.cjs`);
  const cacheFile = cacheFileOf(name);
  // The bundle is a function expression, all of it ASCII, which is the fastest to be read (scripts/bundle.ts).
  const source = readFileSync(filename, 'latin1');
  const cachedData = existsSync(cacheFile) ? readFileSync(cacheFile) : undefined;
  const script = new Script(source, { filename, cachedData });
  const run = () => {
    const module = { exports: {} };
    script.runInThisContext()(module.exports, require, module, filename, dirname(filename));
  };
  return { script, run, cacheFile };
}

/**
 * Where NODE_EXTRA_CA_CERTS is set, Node 20 reads and parses all certificates there are whenever it
 * starts, which takes longer than the rest of its start. Our own TLS never looks at those of Node, so
 * that the shell in front of it keeps them from it. The programs that we start are to have them.
 */
function restoreEnvironment() {
  const { env } = process;
  if (env.TSNBDFUSE_CA_CERTS === undefined) return;
  env.NODE_EXTRA_CA_CERTS = env.TSNBDFUSE_CA_CERTS;
  delete env.TSNBDFUSE_CA_CERTS;
}

function launch(name) {
  restoreEnvironment();
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
