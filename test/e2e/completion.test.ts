/** Completion, asked of the shells themselves: options, what they can be, files, and where the disk comes from. */

import assert from 'node:assert/strict';
import { mkdir } from 'node:fs/promises';
import { after, before, describe, it } from 'node:test';
import { TSNBDFUSE, Workplace } from '../support/mounts.js';
import { requires } from '../support/requires.js';

/** Calls the function as bash does, which makes words of their own of an = and a colon. */
const BASH = `
source <(tsnbdfuse --completion bash)
read -ra COMP_WORDS <<<"$(sed 's/=/ = /g' <<<"$1")"
[[ $1 != *' ' ]] || COMP_WORDS+=('')
COMP_CWORD=$((\${#COMP_WORDS[@]} - 1))
"_\${COMP_WORDS[0]}"
printf '%s\\n' "\${COMPREPLY[@]}"
`;

/** There is no completion without a terminal: zsh is given one, in which the tabulator tells what there is. */
const ZSH = `
zmodload zsh/zpty
zpty shell zsh -f -i
zpty -w shell 'source setup.zsh'
zpty -r -m shell text '*READY*'
zpty -w -n shell "$1"$'\\t'
zpty -r -m shell text '*END*'
print -r -- \${\${text##*BEGIN}%END*}
`;

/** What goes on in that terminal. A function in the place of compadd sees all that would be offered. */
const ZSH_SETUP = `
PS1=
autoload -U compinit
compinit -u -D
source <(tsnbdfuse --completion zsh)
compadd() {
  local -a offered
  builtin compadd -O offered "$@"
  found+=("\${offered[@]}")
  builtin compadd "$@"
}
tell() {
  local -a found
  zle complete-word
  print -rl -- '' BEGIN "\${found[@]}" END
}
zle -N tell
bindkey '^I' tell
print READY
`;

const FISH = `
tsnbdfuse --completion fish | source
complete -C $argv[1] | string replace -r '\\t.*' ''; true
`;

const SHELLS: readonly (readonly [string, readonly string[], string])[] = [
  ['bash', ['--norc', '-c'], BASH],
  ['zsh', ['-f', '-c'], ZSH],
  ['fish', ['--no-config', '-c'], FISH],
];

for (const [shell, options, script] of SHELLS) {
  describe(`completion in ${shell}`, requires({ programs: [shell] }), () => {
    let place: Workplace;

    before(async () => {
      place = await Workplace.create();
      await place.file('disk.raw');
      await place.file('other.txt');
      await place.file('setup.zsh', ZSH_SETUP);
      await mkdir(place.join('dir'));
    });
    after(() => place.remove());

    /** What is offered behind a line, without the blanks that a shell may set behind it. */
    const offered = async (line: string): Promise<string[]> => {
      // bash and zsh have a word for $0.
      const args = [...options, script, ...(shell === 'fish' ? [] : [shell]), line];
      const text = await place.ok(shell, args, { env: { HOME: place.path, TERM: 'dumb' } });
      return [...new Set(text.split(/\s+/).filter((word) => word !== ''))].sort();
    };

    const exact: readonly (readonly [string, readonly string[]])[] = [
      ['tsnbdfuse --rec', ['--reconnect']],
      ['tsnbdfuse --partition', ['--partition', '--partitions']],
      ['tsnbdfuse --cache ', ['none', 'writeback', 'writethrough']],
      ['tsnbdfuse -r --cache wri', ['writeback', 'writethrough']],
      ['tsnbdfuse -P di', ['dir', 'disk.raw']],
      ['tsnbdfuse di', ['dir', 'disk.raw']],
      ['tsnbdfuse -C 2 di', ['dir', 'disk.raw']],
      ['tsnbdfuse disk.raw nbds+', ['nbds+ssh://', 'nbds+unix:///', 'nbds+vsock://']],
      ['tsnbdfuse disk.raw [ tsnbdk', ['tsnbdkit']],
      ['tsnbdfuse disk.raw --unix oth', ['other.txt']],
      ['tsnbdfuse disk.raw oth', ['other.txt']],
      ['tsnbdfuse --format qco', ['qcow', 'qcow2']],
      ['tsnbdfuse --metrics oth', ['other.txt']],
      ['tsnbdfuse -o allow', ['allow_other', 'allow_root']],
      ['tsnbdfuse -o ro,allow_o', ['allow_other']],
      ['tsnbdfuse -o uid=0,allow_o', ['allow_other']],
      ['tsnbdfuse -o uid=0,gid=0 di', ['dir', 'disk.raw']],
      ['tsnbdfuse --completion ', ['bash', 'fish', 'zsh']],
      ['tsnbdkit ', ['file', 'memory']],
      ['tsnbdkit -r file oth', ['other.txt']],
      ['tsnbdkit --exp', ['--exportname']],
    ];
    for (const [line, words] of exact) {
      it(line, async () => {
        // Some shells offer all of a list, to which one word more was found, and some that word.
        const found = (await offered(line)).map((word) =>
          word.replace(/.*,/, '').replace(/[/=]$/, (end) => (/:\/+$/.test(word) ? end : '')),
        );
        assert.deepEqual(found, words);
      });
    }

    it('offers what tells where the disk comes from, behind the mountpoint', async () => {
      const found = await offered('tsnbdfuse disk.raw ');
      for (const word of ['[', 'nbd://', 'nbd+unix:///', 'other.txt']) {
        assert.ok(found.includes(word), word);
      }
    });

    it('leaves the words of a server to that one', async () => {
      assert.deepEqual(await offered('tsnbdfuse disk.raw [ tsnbdkit --partit'), []);
    });
  });
}

describe('completion', () => {
  it('is for the shells that are listed', async () => {
    const place = await Workplace.create();
    try {
      const { status, stderr } = await place.run(TSNBDFUSE, ['--completion', 'csh']);
      assert.equal(status, 2);
      assert.match(stderr, /^tsnbdfuse: .*csh.* bash, zsh, fish/);
    } finally {
      await place.remove();
    }
  });
});
