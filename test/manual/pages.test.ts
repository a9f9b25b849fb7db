/** The pages of the manual: made of their sources, without lint, and with every option that there is. */

import assert from 'node:assert/strict';
import { execFile } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { describe, it } from 'node:test';
import { promisify } from 'node:util';
import { marked } from 'marked';
import type { Tokens } from 'marked';
import { PAGES, dateOf, pageFile, pageOf, sourceOf } from '../../scripts/manual/pages.js';
import type { PageName } from '../../scripts/manual/pages.js';
import { modes, tsnbdfuseOptions, tsnbdkitOptions } from '../../src/cli/completion/completable.js';
import { fuseOptionWords } from '../../src/fuse/mount-options.js';
import { findProgram, requires } from '../support/requires.js';

const run = promisify(execFile);

for (const page of PAGES) {
  describe(page, () => {
    it('is made of its source as it is now', () => {
      const text = readFileSync(pageFile(page), 'utf8');
      assert.equal(text, pageOf(page, dateOf(text) ?? ''), 'npm run build && npm run manual');
    });

    it('has no lint for man', requires({ programs: ['man'] }), async () => {
      const env = { ...process.env, LC_ALL: 'C.UTF-8', MANROFFSEQ: '', MANWIDTH: '80' };
      const words = ['--warnings', '-E', 'UTF-8', '-l', '-Tutf8', '-Z', pageFile(page)];
      const { stderr } = await run('man', words, { env });
      assert.equal(stderr, '');
    });

    it('has no lint for mandoc', requires({ programs: ['mandoc'] }), async () => {
      const { stdout } = await run(findProgram('mandoc') ?? '', ['-Tlint', pageFile(page)]).catch(
        (error: unknown) => error as { stdout: string },
      );
      assert.equal(stdout, '');
    });

    it('fits a terminal of 80 columns', requires({ programs: ['man'] }), async () => {
      const env = { ...process.env, LC_ALL: 'C.UTF-8', MANWIDTH: '80', MAN_KEEP_FORMATTING: '' };
      const { stdout } = await run('man', ['-l', pageFile(page)], { env });
      // A message that is shown as it comes may be longer.
      const long = stdout
        .split('\n')
        .filter((line) => line.length > 80 && !line.includes('tsnbdfuse: '));
      assert.deepEqual(long, []);
    });
  });
}

/** The tags of the entries that stand under some headings, and under those below them. */
function tags(page: PageName, ...headings: readonly string[]): string[] {
  const found: string[] = [];
  let inside = false;
  for (const token of marked.lexer(sourceOf(page))) {
    if (token.type === 'heading') {
      const { depth, text } = token as Tokens.Heading;
      if (depth === 2 || headings.includes(text)) inside = headings.includes(text);
      else if (text === 'Options of FUSE') inside = false;
    }
    if (token.type === 'list' && inside) {
      for (const { text } of (token as Tokens.List).items) found.push(text.split('\n', 1)[0] ?? '');
    }
  }
  return found;
}

const optionNames = (texts: readonly string[]): string[] =>
  texts
    .flatMap((text) => [...text.matchAll(/`(--?[A-Za-z][a-z-]*)/g)].map(([, name = '']) => name))
    .sort();

describe('the options', () => {
  it('of tsnbdfuse are in its page, all of them and no others', () => {
    const there = [
      ...tsnbdfuseOptions().flatMap(({ names }) => names),
      ...modes().map(({ word }) => word),
      ...['--long-options', '--short-options'],
    ];
    assert.deepEqual(optionNames(tags('tsnbdfuse.1', 'Options', 'Modes')), there.sort());
  });

  it('of tsnbdkit are in its page, all of them and no others', () => {
    const there = tsnbdkitOptions().flatMap(({ names }) => names);
    assert.deepEqual(optionNames(tags('tsnbdkit.1', 'Options')), there.sort());
  });

  it('of FUSE are in the page, all of them and no others', () => {
    const told = tags('tsnbdfuse.1', 'Options of FUSE')
      .flatMap((text) => [...text.matchAll(/`([a-z_]+)=?`/g)].map(([, name = '']) => name))
      .sort();
    assert.deepEqual(
      told,
      fuseOptionWords()
        .map((word) => word.replace('=', ''))
        .sort(),
    );
  });
});
