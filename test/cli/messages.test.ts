import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import type { TestContext } from 'node:test';
import { say } from '../../src/cli/messages.js';

describe('a line for the user', () => {
  function said(t: TestContext, message: string): string {
    let text = '';
    const write = t.mock.method(process.stderr, 'write', (piece: unknown) => {
      text += String(piece);
      return true;
    });
    say(message);
    write.mock.restore();
    return text;
  }

  it('is one, whatever a server or a file name brings along', (t) => {
    assert.equal(said(t, 'all is\n  well'), 'tsnbdfuse: all is well\n');
    // ESC [ and its one-character form, which terminals obey as well; ends of lines of other kinds.
    assert.equal(
      said(t, 'a\x1b[2Jb\x9b2Jc\x85d\u2028e\u2029f\x7fg'),
      'tsnbdfuse: a?[2Jb?2Jc?d?e?f?g\n',
    );
    assert.equal(said(t, 'Größe 日本 👩‍💻'), 'tsnbdfuse: Größe 日本 👩‍💻\n');
  });
});
