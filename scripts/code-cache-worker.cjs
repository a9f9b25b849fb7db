'use strict';

/* Runs a command as bin/NAME does, and when it has ended keeps what V8 made of it: see code-cache.ts. */

const { writeFileSync } = require('node:fs');
const { join } = require('node:path');

const [node, , name, ...args] = process.argv;
const bin = join(__dirname, '..', '..', 'bin');
process.argv = [node, join(bin, name), ...args];

const { script, run, cacheFile } = require(join(bin, 'launch.cjs')).load(name);
process.once('exit', () => writeFileSync(cacheFile, script.createCachedData()));
run();
