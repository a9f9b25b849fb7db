/** `npm run build`, after tsc: makes one file of each command, to dist/bundle/; see bin/launch.cjs. */

import { rm } from 'node:fs/promises';
import { build } from 'esbuild';
import { writeCodeCaches } from './code-cache.js';

// V8 tells by the length of a source whether a cache is of it: one that stayed would bring old code along.
await rm('dist/bundle', { recursive: true, force: true });
await build({
  entryPoints: ['dist/src/cli/tsnbdfuse.js', 'dist/src/cli/tsnbdkit.js'],
  outdir: 'dist/bundle',
  outExtension: { '.js': '.cjs' },
  bundle: true,
  // Much code for who asks for metrics; the others are not to read it at each start.
  external: ['prom-client'],
  platform: 'node',
  target: 'node20',
  format: 'cjs',
  // What is imported late still starts late, but stands in the same file.
  supported: { 'dynamic-import': false },
  define: { 'import.meta.dirname': '__dirname' },
  // As Node wraps a CommonJS module: bin/launch.cjs compiles the file as it is.
  banner: { js: '(function (exports, require, module, __filename, __dirname) {' },
  footer: { js: '})' },
  charset: 'ascii',
  // Names stay, for the traces of a bug.
  minifyWhitespace: true,
  minifySyntax: true,
  legalComments: 'none',
  logLevel: 'warning',
});
await writeCodeCaches();
