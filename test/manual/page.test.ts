import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { manualPage } from '../../scripts/manual/page.js';
import { isSaid, sessionsOf } from '../support/manual-sessions.js';

const TITLE = '# tool(1): does it\n\n';

/** What is behind the header and the section NAME. */
function made(markdown: string): string[] {
  const page = manualPage(TITLE + markdown, { product: 'tool 1.0', date: '2026-01-02' });
  const lines = page.trimEnd().split('\n');
  return lines.slice(lines.indexOf('.SH NAME') + 2);
}

describe('a page of the manual', () => {
  it('has a header, and no comment of the source', () => {
    const page = manualPage(`${TITLE}<!-- needs: sh -->\n\n## More\n\nText.\n`, {
      product: 'tool 1.0',
      date: '2026-01-02',
    });
    assert.match(page, /^\.TH "TOOL" "1" "2026-01-02" "tool 1\.0" "User Commands"$/m);
    assert.match(page, /^tool \\- does it$/m);
    assert.ok(!page.includes('needs'));
  });

  const table: readonly (readonly [string, string, readonly string[]])[] = [
    ['paragraphs', 'One\n\ntwo', ['One', '.PP', 'two']],
    ['a sentence in each line', 'One. Two and\nmore.', ['One.', 'Two and more.']],
    ['a paragraph behind a heading', '## A b\n\nText', ['.SH "A B"', 'Text']],
    ['what is typed, and what stands for something', '`-C` _N_', ['\\fB\\-C\\fR \\fIN\\fR']],
    [
      'an entry',
      '- `-r`\n\n  Text.\n\n- `-v`\n\n  More.\n',
      ['.TP', '\\fB\\-r\\fR', 'Text.', '.TP', '\\fB\\-v\\fR', 'More.'],
    ],
    ['a point', '- one\n- two', ['.IP \\(bu 2', 'one', '.IP \\(bu 2', 'two']],
    [
      'lines of code as they are',
      '```\n.x \'a\' \\n "b"\n\n-c ~\n```',
      ['.RS 2', '.EX', '\\&.x \\(aqa\\(aq \\en \\(dqb\\(dq', '\\&', '\\-c \\(ti', '.EE', '.RE'],
    ],
    ['a line that begins with a dot', '.x y', ['\\&.x y']],
    ['lines of a form', '`a`\\\n`b`', ['\\fB\\%a\\fR', '.br', '\\fB\\%b\\fR']],
    ['another page', '[other(7)](other.7.md).', ['\\fB\\%other\\fR(7).']],
    [
      'entries within an entry',
      '- `a`\n\n  Text.\n  - `b`\n\n    More.\n',
      ['.TP', '\\fB\\%a\\fR', 'Text.', '.RS', '.TP', '\\fB\\%b\\fR', 'More.', '.RE'],
    ],
  ];
  for (const [name, markdown, lines] of table) {
    it(name, () => assert.deepEqual(made(markdown), lines));
  }

  for (const markdown of ['> quoted', '| a |\n| - |\n| b |', '1. one', '#### deep', 'a\u00e4']) {
    it(`is not made of ${JSON.stringify(markdown)}`, () => assert.throws(() => made(markdown)));
  }
});

describe('the commands of a page', () => {
  it('are a session for each heading, and for each note', () => {
    const page = `# A

<!-- needs: one two -->
<!-- before: touch x -->

\`\`\`console
$ first \\
    more
said
$ second
\`\`\`

Text.

<!-- status: 3 -->

\`\`\`console
$ third
\`\`\`

<!-- not run: why -->

\`\`\`
$ fourth
\`\`\`

<!-- not run: of this alone -->

\`\`\`
# root's
\`\`\`

## B

<!-- file: b.js -->

\`\`\`js
fifth();
\`\`\`

\`\`\`console
$ node b.js
\`\`\`
`;
    const [first, second, third, ...more] = sessionsOf(page);
    assert.deepEqual(more, []);
    assert.deepEqual(
      [first?.needs, first?.before, first?.notRun],
      [['one', 'two'], ['touch x'], undefined],
    );
    assert.deepEqual(first?.commands, [
      { text: 'first \\\n    more', output: 'said', status: 0 },
      { text: 'second', output: undefined, status: 0 },
      { text: 'third', output: undefined, status: 3 },
    ]);
    assert.deepEqual([second?.name, second?.notRun], ['A', 'why']);
    assert.deepEqual(
      [third?.name, third?.notRun, third?.before, third?.commands.map(({ text }) => text)],
      ['B', undefined, ["cat >b.js <<'END_OF_FILE'\nfifth();\nEND_OF_FILE"], ['node b.js']],
    );
    assert.throws(() => sessionsOf('<!-- bevor: x -->'), /bevor/);
  });

  it('say what is shown, with dots for what differs', () => {
    assert.ok(isSaid('a\n...\nz', 'a\nb\nc\nz\n'));
    assert.ok(isSaid('a\n...', 'a\n'));
    assert.ok(isSaid('at ...: no', 'at 127.0.0.1:3: no\n'));
    assert.ok(!isSaid('a', 'a\nb\n'));
    assert.ok(!isSaid('a.c', 'abc\n'));
    assert.ok(!isSaid('', 'tsnbdfuse: no\n'));
  });
});
