/**
 * A program: does the same random things to two files of the same size, and compares what it reads.
 * The test starts it as a child, since a process that touches a mount that it serves would hang.
 *
 *     node e2e-differential.js FILE MODEL SEED STEPS
 */

import { spawnSync } from 'node:child_process';
import {
  closeSync,
  constants,
  fdatasyncSync,
  fstatSync,
  fsyncSync,
  openSync,
  readFileSync,
  readSync,
  writeSync,
} from 'node:fs';
import { seeded } from './memory-disk.js';

const [file = '', model = '', seed = '1', steps = '0'] = process.argv.slice(2);
const random = seeded(Number(seed));
const pick = (below: number): number => Math.floor(random() * below);

/** The mount is opened in each of the ways that a tool may; the model as it is best for a model. */
const WAYS = [0, 0, constants.O_DIRECT, constants.O_DSYNC, constants.O_DIRECT | constants.O_DSYNC];
let fd = openSync(file, 'r+');
const modelFd = openSync(model, 'r+');
const size = fstatSync(fd).size;
if (fstatSync(modelFd).size !== size) throw new Error('the files have different sizes');

const LONGEST = Math.min(size, 300_000);

/** Ranges of all kinds: within a block, over many, aligned, up to the end. */
function pickRange(): { at: number; length: number } {
  let length = 1 + pick([10, 600, 5000, LONGEST][pick(4)] ?? 1);
  let at = pick(size);
  const align = [1, 512, 4096, 65536][pick(4)] ?? 1;
  if (random() < 0.6) {
    at -= at % align;
    length += align - (length % align);
  }
  if (random() < 0.05) at = Math.max(0, size - length);
  return { at, length: Math.min(length, size - at) };
}

function compare(at: number, length: number, what: string): void {
  const [is, should] = [Buffer.alloc(length), Buffer.alloc(length)];
  const count = readSync(fd, is, 0, length, at);
  readSync(modelFd, should, 0, length, at);
  if (count !== length) throw new Error(`${what}: a read of ${length} at ${at} gave ${count}`);
  if (is.equals(should)) return;
  const wrong = is.findIndex((byte, i) => byte !== should[i]);
  throw new Error(`${what}: ${length} at ${at} differ at ${at + wrong}`);
}

function allocate(what: string, at: number, length: number): void {
  for (const path of [file, model]) {
    const args = [what, '-n', '-o', String(at), '-l', String(length), path];
    const { status, stderr } = spawnSync('fallocate', args, { encoding: 'utf8' });
    if (status !== 0) throw new Error(`fallocate ${args.join(' ')}: ${stderr}`);
  }
}

function step(what: string): void {
  const { at, length } = pickRange();
  const kind = random();
  if (kind < 0.4) {
    const data = Buffer.alloc(length);
    // Runs of equal bytes, zeroes among them, and noise.
    if (random() < 0.5) data.fill(pick(4));
    else for (let i = 0; i < length; i++) data[i] = pick(256);
    if (writeSync(fd, data, 0, length, at) !== length) throw new Error(`${what}: a short write`);
    writeSync(modelFd, data, 0, length, at);
  } else if (kind < 0.8) {
    compare(at, length, what);
  } else if (kind < 0.86) {
    if (random() < 0.5) fsyncSync(fd);
    else fdatasyncSync(fd);
  } else if (kind < 0.96) {
    closeSync(fd);
    fd = openSync(file, constants.O_RDWR | (WAYS[pick(WAYS.length)] ?? 0));
  } else {
    allocate(random() < 0.5 ? '-p' : '-z', at, length);
  }
}

for (let i = 0; i < Number(steps); i++) step(`step ${i}`);
closeSync(fd);
closeSync(modelFd);
if (!readFileSync(file).equals(readFileSync(model))) throw new Error('they differ at the end');
